import Foundation

/// Numbers and markup as text.
public enum Text {
    /// At most `digits` decimals, without zeros at the end.
    public static func number(_ value: Double, digits: Int = 3) -> String {
        guard value.isFinite else { return value.isNaN ? "–" : value > 0 ? "inf" : "-inf" }
        var text = String(format: "%.\(digits)f", value)
        guard text.contains(".") else { return text }
        while text.hasSuffix("0") { text.removeLast() }
        if text.hasSuffix(".") { text.removeLast() }
        return text == "-0" ? "0" : text
    }

    /// Exactly two decimals.
    public static func fixed(_ value: Double) -> String { String(format: "%.2f", value.isFinite ? value : 0) }

    /// Safe inside an element or attribute of HTML and SVG.
    public static func escaped(_ text: String) -> String {
        text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
            .replacingOccurrences(of: ">", with: "&gt;").replacingOccurrences(of: "\"", with: "&quot;")
    }
}
