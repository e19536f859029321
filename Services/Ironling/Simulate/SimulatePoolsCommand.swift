import AttentionService
import Checkpoint
import Foundation
import ServiceSupport
import StatePools

/// `ironling simulate pools`: what requests take on a device, and what a budget holds.
enum SimulatePoolsCommand {
    static let options = CommandLineOptions(
        program: "ironling simulate pools",
        summary: "Prints the bytes of KV per token and of recurrent state per request on one device, and what a budget "
            + "of memory holds.",
        options: [
            CommandLineOption("shape", value: "NAME", help: "ling-2.6-1t", fallback: "ling-2.6-1t"),
            CommandLineOption("model", value: "DIR", help: "checkpoint folder instead, with its FP32 latents"),
            CommandLineOption(
                "tensor-parallel", value: "N", help: "devices the heads are split over",
                shownFallback: "4, or 1 for --model"),
            CommandLineOption("budget", value: "SIZE", help: "memory of one device for both pools, such as 20GiB"),
            CommandLineOption(
                "ratio", value: "R", help: "recurrent : KV memory of the budget is R : 1", fallback: "0.9"),
            CommandLineOption("json", help: "print one JSON object"),
        ])

    static func run(_ values: OptionValues) throws {
        let shape = try stateShape(values)
        let isPublished = values.text("model") == nil
        let devices =
            values.text("tensor-parallel") == nil
            ? (isPublished ? 4 : 1) : try values.integer("tensor-parallel", in: 1...1024)
        let budget = values.text("budget") == nil ? nil : try values.bytes("budget")
        let ratio = try values.number("ratio", in: 0.01...100)
        var objects: [[String: Any]] = []
        for isPadded in [true, false] {
            let calculator = try PoolCalculator(shape: shape, tensorParallel: devices, isPadded: isPadded)
            let capacity = try budget.map { try calculator.capacity(bytes: $0, ratio: ratio) }
            objects.append(object(calculator, capacity))
            guard !values.isOn("json") else { continue }
            print(calculator.summary)
            if let capacity { print("  a budget of \(values.text("budget") ?? "") holds \(capacity)") }
        }
        guard values.isOn("json") else { return }
        print(try KernelReport.json(["padded": objects[0], "unpadded": objects[1]]))
    }

    private static func stateShape(_ values: OptionValues) throws -> StateShape {
        if let model = values.text("model") {
            return StateShape(try Checkpoint(directory: URL(fileURLWithPath: model)).configuration)
        }
        let name = try values.required("shape")
        guard name == "ling-2.6-1t" else { throw UsageError("--shape is ling-2.6-1t, not \"\(name)\"; see --model") }
        return .ling1T
    }

    private static func object(_ calculator: PoolCalculator, _ capacity: PoolCapacity?) -> [String: Any] {
        var object: [String: Any] = [
            "tensor_parallel": calculator.tensorParallel, "bytes_per_token": calculator.bytesPerToken,
            "bytes_per_request": calculator.bytesPerRequest,
        ]
        guard let capacity else { return object }
        object["requests"] = capacity.requests
        object["tokens"] = capacity.tokens
        object["recurrent_bytes"] = capacity.recurrentBytes
        object["kv_bytes"] = capacity.latentBytes
        return object
    }
}
