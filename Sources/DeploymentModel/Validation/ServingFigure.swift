import Foundation
import FusedMoE

/// One number of a published serving or memory figure.
public struct ServingFigure: Sendable, Equatable {
    /// What may be done with a number.
    public enum Use: String, Sendable, Equatable {
        /// A parameter was fitted to it.
        case calibrate
        /// Only predicted.
        case predict
        /// Only its sign is published.
        case sign = "predict the sign"
        /// Follows by arithmetic.
        case exact
        /// Printed for comparison, not among the published figures of this project.
        case report
    }

    /// The figure in `published.json`, and which of its numbers.
    public let id: String
    /// What the number is.
    public let metric: String
    /// The number as published.
    public let published: Double
    /// Its unit.
    public let unit: String
    /// What may be done with it.
    public let use: Use

    /// Name in tables: "e2e-1024-c32 TPOT".
    public var name: String { "\(id) \(metric)" }

    /// The largest error's magnitude that we aim for, in percent of the published number.
    public var aim: Double {
        switch use {
        case .calibrate: 3
        case .predict: 10
        case .sign, .report: .infinity
        case .exact: 0
        }
    }
}

extension ServingFigure {
    private struct Part {
        let metric: String
        let unit: String
        let use: Use
        /// Published number where the file has a text.
        var value: Double?
        /// What the file must say about the figure's use.
        let permission: String
    }

    /// The numbers of every figure, in the order of the file. Where it says that one of several may be calibrated, that
    /// one is named here.
    private static let parts: [(id: String, parts: [Part])] = [
        (
            "e2e-1024-c32",
            [
                Part(metric: "output", unit: "tok/s", use: .predict, permission: "predict the rest"),
                Part(metric: "TPOT", unit: "ms", use: .calibrate, permission: "calibrate TPOT"),
                Part(metric: "TTFT", unit: "ms", use: .predict, permission: "predict the rest"),
                Part(metric: "duration", unit: "s", use: .predict, permission: "predict the rest"),
            ]
        ),
        ("e2e-prefill-gain", [Part(metric: "V1 to V2", unit: "percent", use: .predict, permission: "predict")]),
        (
            "e2e-decode-gain",
            [
                Part(metric: "V1 to V2 at 128", unit: "percent", use: .predict, permission: "predict"),
                Part(metric: "V1 to V2 at 512", unit: "percent", use: .predict, permission: "predict"),
            ]
        ),
        (
            "e2e-h200",
            [
                Part(
                    metric: "decode at 128", unit: "ratio", use: .calibrate,
                    permission: "one H200 efficiency may be calibrated"),
                Part(metric: "decode at 512", unit: "ratio", use: .predict, permission: "predict"),
            ]
        ),
        (
            "e2e-h200-prefill",
            [Part(metric: "prefill", unit: "ratio", use: .sign, value: 1, permission: "predict the sign")]
        ),
        ("mla-kv", [Part(metric: "KV per token", unit: "KiB", use: .exact, permission: "exact")]),
        ("recurrent", [Part(metric: "state per request", unit: "MiB", use: .exact, permission: "exact")]),
        (
            "kv-16k-256k",
            [
                Part(metric: "KV of 16K", unit: "MiB", use: .exact, value: 200, permission: "exact"),
                Part(metric: "KV of 256K", unit: "GiB", use: .exact, value: 3.1, permission: "exact"),
            ]
        ),
    ]

    /// All numbers of scope `serving` and `memory`.
    ///
    /// - Throws: `DeploymentError` with code `.figures` when the file lacks one, has one that is not known here, or does
    ///   not allow what is done with it.
    public static func all(json: Data = PublishedFigure.file) throws(DeploymentError) -> [ServingFigure] {
        guard let object = try? JSONSerialization.jsonObject(with: json) as? [String: Any],
            let entries = object["figures"] as? [[String: Any]]
        else { throw DeploymentError(.figures, "the published figures are not an object with an array \"figures\"") }
        var figures: [ServingFigure] = []
        for entry in entries where ["serving", "memory"].contains(entry["scope"] as? String) {
            figures += try numbers(of: entry)
        }
        guard figures.count == parts.reduce(0, { $0 + $1.parts.count }) else {
            throw DeploymentError(.figures, "the published figures lack a serving or memory figure")
        }
        return figures
    }

    private static func numbers(of entry: [String: Any]) throws(DeploymentError) -> [ServingFigure] {
        let id = entry["id"] as? String ?? "?"
        guard let known = parts.first(where: { $0.id == id })?.parts, let use = entry["use"] as? String else {
            throw DeploymentError(.figures, "the published figure \"\(id)\" is not known, or does not say its use")
        }
        let values = entry["value"] as? [Any] ?? [entry["value"] as Any]
        var figures: [ServingFigure] = []
        for (index, part) in known.enumerated() {
            let number = index < values.count ? (values[index] as? NSNumber)?.doubleValue : nil
            guard let published = part.value ?? number, use.contains(part.permission) else {
                throw DeploymentError(
                    .figures, "the published figure \"\(id)\" has no \(part.metric), or forbids its use")
            }
            figures.append(
                ServingFigure(id: id, metric: part.metric, published: published, unit: part.unit, use: part.use))
        }
        return figures
    }
}
