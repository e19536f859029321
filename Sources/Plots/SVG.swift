/// Elements of SVG as text.
public enum SVG {
    /// An element with its attributes in order, and with `text` in it if there is any; values and text may be anything.
    public static func element(
        _ name: String, _ attributes: KeyValuePairs<String, String>, text: String? = nil
    ) -> String {
        let opened = attributes.reduce(into: "<\(name)") { $0 += " \($1.key)=\"\(Text.escaped($1.value))\"" }
        return text.map { "\(opened)>\(Text.escaped($0))</\(name)>" } ?? opened + "/>"
    }
}
