import EventLoop
import Foundation
import ServiceSupport

/// `ironling up`: all services on loopback until a signal.
enum UpCommand {
    static let options = CommandLineOptions(
        program: "ironling up", summary: "Starts gateway, attention, experts and sampler, and keeps them running.",
        options: [
            CommandLineOption("model", value: "DIR", help: "checkpoint folder"),
            CommandLineOption("http-port", value: "PORT", help: "HTTP port of the gateway", fallback: "8000"),
            CommandLineOption("rpc-port", value: "PORT", help: "binary port of the gateway", fallback: "7000"),
            CommandLineOption("host", value: "ADDRESS", help: "address the gateway listens on", fallback: "127.0.0.1"),
            CommandLineOption("experts", value: "N", help: "experts processes", fallback: "1"),
            CommandLineOption("attention", value: "N", help: "attention instances", fallback: "1"),
            CommandLineOption("prefill-chunk", value: "N", help: "prompt tokens per step", fallback: "512"),
            CommandLineOption(
                "threads", value: "N", help: "threads per service", fallback: "\(ServiceProcess.defaultThreads)"),
            CommandLineOption("decay", value: "a|b", help: "decay convention of the linear layers", fallback: "a"),
            CommandLineOption("byte-tokenizer", help: "without tokenizer.json, treat ids 0…255 as bytes of UTF-8"),
        ])

    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        let set = try ServiceSet(try plan(values), loop: loop)
        set.onFailure = { reason in
            ServiceProcess.complain("ironling: \(reason)")
            stop(set, loop, status: 1)
        }
        for number in [SIGINT, SIGTERM] { loop.onSignal(number) { stop(set, loop, status: 0) } }
        try await set.start()
        let address = "http://\(try values.required("host")):\(set.httpPort)"
        ServiceProcess.announce("ready \(address)")
        let hasTokenizer = FileManager.default.fileExists(atPath: try values.required("model") + "/tokenizer.json")
        let prompt = hasTokenizer ? "\"It is a truth\"" : "[1, 2, 3]"
        ServiceProcess.announce(
            "try: curl \(address)/v1/completions -H 'Content-Type: application/json' "
                + "-d '{\"prompt\": \(prompt), \"max_tokens\": 32}'")
    }

    private static func stop(_ set: ServiceSet, _ loop: UVLoop, status: Int32) {
        Task(executorPreference: loop) {
            await set.stop()
            exit(status)
        }
    }

    static func plan(_ values: OptionValues) throws(UsageError) -> ServiceSetPlan {
        var plan = ServiceSetPlan(model: try values.required("model"))
        plan.experts = try values.integer("experts", in: 1...256)
        plan.attentions = try values.integer("attention", in: 1...64)
        plan.prefillChunk = try values.integer("prefill-chunk", in: 64...16384)
        plan.threads = try values.integer("threads", in: 1...256)
        plan.decay = try values.required("decay")
        plan.host = try values.required("host")
        plan.rpcPort = try values.integer("rpc-port", in: 0...65535)
        plan.httpPort = try values.integer("http-port", in: 0...65535)
        plan.usesBytes = values.isOn("byte-tokenizer")
        return plan
    }
}
