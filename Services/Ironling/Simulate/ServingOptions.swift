import DeploymentModel
import Foundation
import ServiceSupport

/// Options of the commands that simulate a deployment.
enum ServingOptions {
    /// The step costs in `--costs`, or the committed ones.
    static func costs(_ values: OptionValues) throws -> CostParameters {
        guard let file = values.text("costs") else { return .default }
        guard let data = FileManager.default.contents(atPath: file) else {
            throw UsageError("--costs: \(file) cannot be read")
        }
        guard data.count <= 1 << 20 else { throw UsageError("--costs: \(file) is longer than 1 MiB") }
        return try CostParameters(json: data)
    }
}
