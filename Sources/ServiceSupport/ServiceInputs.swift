import Checkpoint
import Foundation
import RPC
import WireProtocol

/// What services read from their command line and their peers, with the errors each expects.
public enum ServiceInputs {
    /// The checkpoint named by `--model` and `--decay`.
    ///
    /// - Throws: `UsageError` or `CheckpointError`.
    public static func checkpoint(_ values: OptionValues) throws -> Checkpoint {
        let folder = try ModelFolder(try values.required("model"))
        guard let convention = DecayConvention(rawValue: try values.required("decay")) else {
            throw UsageError("--decay is a or b")
        }
        var checkpoint = try Checkpoint(folder, decayConvention: convention)
        checkpoint.placement = try placement(values.text("weights"))
        return checkpoint
    }

    /// What `--weights` asks for; automatic when it is absent.
    ///
    /// - Throws: `UsageError` for any other text.
    public static func placement(_ text: String?) throws(UsageError) -> WeightPlacement {
        guard let placement = WeightPlacement(rawValue: text ?? "auto") else {
            throw UsageError("--weights is auto, copy or map")
        }
        return placement
    }

    /// To be asked before weights are loaded: says what a user should know about them and this machine's memory.
    ///
    /// - weights: bytes of each process that loads some here.
    /// - Throws: `StartError` when they do not fit.
    public static func checkMemory(_ weights: [Int], stateBytes: Int = 0, placement: WeightPlacement) throws {
        let fit = MemoryFit(
            weights: weights, stateBytes: stateBytes, memory: MachineMemory.now(), placement: placement)
        guard let sentence = fit.sentence else { return }
        guard fit.verdict != .exceeds else { throw StartError(sentence) }
        ServiceProcess.complain("warning: \(sentence)")
    }

    /// True when `--mode` asks for shapes and time instead of weights and answers.
    ///
    /// - Throws: `UsageError` for any other mode.
    public static func isEmulated(_ values: OptionValues) throws(UsageError) -> Bool {
        switch try values.required("mode") {
        case "compute": return false
        case "emulate": return true
        case let text: throw UsageError("--mode is compute or emulate, not \"\(text)\"")
        }
    }

    /// What somebody with a simulator has handed in.
    ///
    /// - Throws: `StartError` when nobody has.
    public static func required<Simulation>(_ simulation: Simulation?) throws(StartError) -> Simulation {
        guard let simulation else { throw StartError("this executable holds no simulator; the command ironling does") }
        return simulation
    }

    /// Runs a decoder and turns its refusal into the answer of a call.
    ///
    /// - Throws: `RPCError` invalidArgument with the decoder's sentence.
    public static func decoded<Value>(_ body: () throws(WireError) -> Value) throws(RPCError) -> Value {
        do throws(WireError) { return try body() } catch { throw RPCError(.invalidArgument, error.description) }
    }
}
