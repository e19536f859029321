import Foundation

/// One published measurement of the kernels, as `published.json` has it.
public struct PublishedFigure: Sendable, Equatable {
    /// What may be done with a figure.
    public enum Use: String, Sendable, Equatable {
        /// Parameters may be fitted to it.
        case calibrate
        /// Never fitted, only predicted and compared.
        case predict
        /// Follows by arithmetic.
        case exact
        /// Shown and not scored.
        case report
    }

    /// Short name.
    public let id: String
    /// What was measured.
    public let what: String
    /// The numbers, one or several.
    public let values: [Double]
    /// Unit of all numbers.
    public let unit: String
    /// What may be done with it.
    public let use: Use
    /// Who published it.
    public let source: String

    /// The file of all published figures, of every scope.
    public static var file: Data { Data(PackageResources.published_json) }

    /// All figures of scope `kernel`, in the file's order.
    ///
    /// - Throws: `FusedMoEError` with code `.parameters` that names the entry that is broken.
    public static func kernelFigures() throws(FusedMoEError) -> [PublishedFigure] {
        try figures(json: file, scope: "kernel")
    }

    static func figures(json: Data, scope: String) throws(FusedMoEError) -> [PublishedFigure] {
        guard let object = try? JSONSerialization.jsonObject(with: json) as? [String: Any],
            let entries = object["figures"] as? [[String: Any]]
        else { throw FusedMoEError(.parameters, "the published figures are not an object with an array \"figures\"") }
        var figures: [PublishedFigure] = []
        for entry in entries where entry["scope"] as? String == scope { figures.append(try figure(entry)) }
        return figures
    }

    private static func figure(_ entry: [String: Any]) throws(FusedMoEError) -> PublishedFigure {
        let values = (entry["value"] as? [Any] ?? [entry["value"] as Any]).compactMap { ($0 as? NSNumber)?.doubleValue }
        guard let id = entry["id"] as? String, let what = entry["what"] as? String,
            let unit = entry["unit"] as? String, let use = Use(rawValue: entry["use"] as? String ?? ""),
            let source = entry["source"] as? String, !values.isEmpty
        else {
            throw FusedMoEError(
                .parameters, "the published figure \"\(entry["id"] ?? "?")\" lacks a field or has an unknown use")
        }
        return PublishedFigure(id: id, what: what, values: values, unit: unit, use: use, source: source)
    }
}
