import EventLoop
import Foundation
import RPC
import ServiceSupport

/// A connection to a gateway for one command: one that runs (`--gateway`), or one started for it (`--model`).
enum GatewaySession {
    /// Options of every command that talks to a gateway.
    static let options =
        [
            CommandLineOption("model", value: "DIR", help: "checkpoint folder; services are started for this call"),
            CommandLineOption("gateway", value: "HOST:PORT", help: "binary port of a running gateway, instead"),
            CommandLineOption(
                "client-secret-file", value: "FILE", help: "file with the secret of the gateway's clients", guards: true
            ),
        ] + startOptions

    /// Options of the services that are started for a command.
    static let startOptions = [
        CommandLineOption("experts", value: "N", help: "experts processes", fallback: "1"),
        CommandLineOption(
            "prefill-chunk", value: "N", help: "prompt tokens per step", fallback: "\(ComputedDefaults.chunk)"),
        ServiceProcess.threadsOption("threads per service"),
        CommandLineOption("decay", value: "a|b", help: "decay convention of the linear layers", fallback: "a"),
        ServiceProcess.weightsOption,
        CommandLineOption("byte-tokenizer", help: "without tokenizer.json, treat ids 0…255 as bytes of UTF-8"),
    ]

    /// Runs `body` with a connected client; services started for it are stopped afterwards.
    static func with<Value>(
        _ values: OptionValues, _ loop: UVLoop, limits: RPCLimits = RPCLimits(),
        _ body: (RPCClient) async throws -> Value
    ) async throws -> Value {
        if values.text("gateway") != nil {
            let address = try values.address("gateway")
            let client = RPCClient(
                loop: loop, host: address.host, port: address.port, identity: PeerIdentity(role: "client"),
                role: "gateway", fingerprint: "",
                secret: try ServiceProcess.secret(values, option: "client-secret-file"), limits: limits)
            return try await connected(client, body)
        }
        guard values.text("model") != nil else { throw UsageError("--model DIR or --gateway HOST:PORT is required") }
        let set = try ServiceSet(try plan(values), loop: loop)
        set.onFailure { reason in
            ServiceProcess.complain("ironling: \(reason)")
            exit(1)
        }
        do {
            guard try await set.start() else { throw StartError("stopped before the services were ready") }
            let value = try await connected(set.makeClient(limits: limits), body)
            await set.stop()
            return value
        } catch {
            await set.stop()
            throw error
        }
    }

    private static func connected<Value>(
        _ client: RPCClient, _ body: (RPCClient) async throws -> Value
    ) async throws -> Value {
        client.start()
        defer { client.close() }
        try await client.waitReady(timeoutMicroseconds: 10_000_000)
        return try await body(client)
    }

    private static func plan(_ values: OptionValues) throws(UsageError) -> ServiceSetPlan {
        var plan = ServiceSetPlan(model: try values.required("model"))
        plan.experts = try values.integer("experts", in: 1...256)
        plan.prefillChunk = try values.integer("prefill-chunk", in: 64...16384)
        plan.threads = try values.integer("threads", in: 1...256)
        plan.decay = try values.required("decay")
        plan.weights = try values.required("weights")
        plan.usesBytes = values.isOn("byte-tokenizer")
        plan.isQuiet = true
        plan.logLevel = "warning"
        return plan
    }
}
