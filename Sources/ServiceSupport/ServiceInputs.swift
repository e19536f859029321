import Checkpoint
import Foundation
import RPC
import WireProtocol

/// What services read from their command line and their peers, with the errors each expects.
public enum ServiceInputs {
    /// The checkpoint named by `--model` and `--decay`.
    public static func checkpoint(_ values: OptionValues) throws -> Checkpoint {
        let folder = try ModelFolder(try values.required("model"))
        guard let convention = DecayConvention(rawValue: try values.required("decay")) else {
            throw UsageError("--decay is a or b")
        }
        var checkpoint = try Checkpoint(folder, decayConvention: convention)
        guard let placement = WeightPlacement(rawValue: values.text("weights") ?? "auto") else {
            throw UsageError("--weights is auto, copy or map")
        }
        checkpoint.placement = placement
        return checkpoint
    }

    /// True when `--mode` asks for shapes and time instead of weights and answers.
    public static func isEmulated(_ values: OptionValues) throws(UsageError) -> Bool {
        switch try values.required("mode") {
        case "compute": return false
        case "emulate": return true
        case let text: throw UsageError("--mode is compute or emulate, not \"\(text)\"")
        }
    }

    /// Runs a decoder and turns its refusal into the answer of a call.
    public static func decoded<Value>(_ body: () throws(WireError) -> Value) throws(RPCError) -> Value {
        do throws(WireError) { return try body() } catch { throw RPCError(.invalidArgument, error.description) }
    }
}
