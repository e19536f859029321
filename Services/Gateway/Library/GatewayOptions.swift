import EventLoop
import Foundation
import Observability
import Scheduling
import ServiceSupport
import Serving

/// What the gateway's command line asks for, checked.
struct GatewayOptions {
    /// Where the attention instances are.
    let attention: [InstanceAddress]
    /// How one of them is chosen.
    let placement: PlacementPolicy
    /// How many requests may be placed again.
    let retries: RetryBudget.Limits
    /// Longest time of one request.
    let timeoutMicroseconds: UInt64
    /// Longest wait for streams at a stop.
    let drainMicroseconds: UInt64
    /// Name of the model; nil for its own.
    let servedName: String?
    /// How HTTP clients are treated.
    let http: HTTPFaceOptions
    /// Address of both ports.
    let host: String
    /// Port of HTTP, 0 for any.
    let httpPort: Int
    /// Port of the binary protocol, 0 for any.
    let rpcPort: Int
    /// What all services share.
    let secret: [UInt8]
    /// What clients of the binary port share.
    let clientSecret: [UInt8]
    /// Where instances that come and go are logged, and requests.
    let logger: Logger

    /// - Throws: `UsageError` or `StartError` with the sentence to print.
    init(_ values: OptionValues) throws {
        logger = try ServiceProcess.logger(values, service: "gateway")
        attention = try Self.instances(values)
        secret = try ServiceProcess.secret(values)
        placement = try Self.placement(values)
        retries = try Self.retries(values)
        timeoutMicroseconds = UInt64(try values.integer("timeout", in: 1...86_400)) * 1_000_000
        http = try Self.http(values, logger)
        drainMicroseconds = UInt64(try values.integer("drain-timeout", in: 0...3600)) * 1_000_000
        servedName = values.text("served-model-name")
        host = try values.host()
        httpPort = try values.integer("http-port", in: 0...65535)
        rpcPort = try values.integer("rpc-port", in: 0...65535)
        clientSecret = try ServiceProcess.secret(values, option: "client-secret-file")
    }

    private static func instances(_ values: OptionValues) throws(UsageError) -> [InstanceAddress] {
        var instances: [InstanceAddress] = []
        for (option, role) in [("attention", Part.both), ("prefill", .prefill), ("decode", .decode)] {
            guard values.text(option) != nil else { continue }
            instances += try values.addresses(option).map { InstanceAddress(role: role, address: $0) }
        }
        let roles = instances.map(\.role)
        guard roles.contains(.both) || (roles.contains(.prefill) && roles.contains(.decode)) else {
            throw UsageError("--attention, or --prefill and --decode, must name at least one instance each")
        }
        return instances
    }

    private static func placement(_ values: OptionValues) throws(UsageError) -> PlacementPolicy {
        let name = try values.required("placement")
        guard let policy = PlacementPolicy(rawValue: name) else {
            let names = PlacementPolicy.allCases.map(\.rawValue).joined(separator: ", ")
            throw UsageError("--placement is one of \(names), not \"\(name)\"")
        }
        return policy
    }

    private static func retries(_ values: OptionValues) throws(UsageError) -> RetryBudget.Limits {
        var limits = RetryBudget.Limits()
        limits.sharePercent = try values.integer("retry-share", in: 0...100)
        limits.floor = try values.integer("retry-floor", in: 0...1_000_000)
        return limits
    }

    /// Origins as browsers send them: without a path, and so without a slash at the end.
    private static func origins(_ values: OptionValues) throws(UsageError) -> Set<String> {
        var origins = Set<String>()
        for part in values.text("cors-origin")?.split(separator: ",") ?? [] {
            var origin = part.trimmingCharacters(in: .whitespaces)
            if origin.hasSuffix("/") { origin.removeLast() }
            let host = origin.components(separatedBy: "://")
            guard origin == "*" || origin == "null" || (host.count == 2 && !host[1].contains("/")) else {
                throw UsageError(
                    "--cors-origin takes origins such as https://page.example, or *, not \"\(part)\"")
            }
            origins.insert(origin.lowercased())
        }
        return origins
    }

    private static func http(_ values: OptionValues, _ logger: Logger) throws -> HTTPFaceOptions {
        var options = HTTPFaceOptions()
        options.logger = logger
        options.limits.connections = try values.integer("http-connections", in: 1...65536)
        if values.text("http-body") != nil {
            options.bodyBytes = try values.integer("http-body", in: 1024...(1 << 30))
        }
        options.pingSeconds = UInt64(try values.integer("sse-ping", in: 0...3600))
        options.limits.idleMicroseconds = UInt64(try values.integer("http-keep-alive", in: 1...86_400)) * 1_000_000
        options.corsOrigins = try origins(values)
        if let path = values.text("api-keys-file") {
            let limit = try values.integer("key-requests", in: 1...1_000_000)
            do {
                options.keys = try APIKeys(parsing: String(contentsOfFile: path, encoding: .utf8), limit: limit)
            } catch {
                throw StartError("--api-keys-file \(path): \(ErrorText.sentence(error))")
            }
        }
        return options
    }
}

extension GatewayOptions {
    /// What the command line may have, and what `--help` shows.
    static let commandLine = CommandLineOptions(
        program: "ironling-gateway",
        summary: "Speaks HTTP and the binary protocol to clients, tokenizes, and routes to attention instances.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("rpc-port", value: "PORT", help: "TCP port of the binary protocol", fallback: "7000"),
            CommandLineOption("http-port", value: "PORT", help: "TCP port of HTTP", fallback: "8000"),
            CommandLineOption(
                "attention", value: "HOST:PORT,…", help: "attention instances that compute prompts and decode"),
            CommandLineOption("prefill", value: "HOST:PORT,…", help: "attention instances that compute prompts"),
            CommandLineOption(
                "decode", value: "HOST:PORT,…",
                help: "attention instances that decode; in all three, a name stands for all it resolves to"),
            ServiceProcess.peerWaitOption,
            CommandLineOption(
                "placement", value: "POLICY", help: "least-loaded, round-robin or prefix-affine",
                fallback: "prefix-affine", choices: PlacementPolicy.allCases.map(\.rawValue)),
            CommandLineOption(
                "retry-share", value: "PERCENT",
                help: "requests that may be placed again, per hundred placed in the last 10 s",
                fallback: "\(RetryBudget.Limits().sharePercent)"),
            CommandLineOption(
                "retry-floor", value: "N",
                help: "as many may be besides, in 10 s; no fewer than the largest instance holds",
                fallback: "\(RetryBudget.Limits().floor)"),
            CommandLineOption(
                "client-secret-file", value: "FILE", help: "file with the secret that clients of the binary port share",
                guards: true),
            CommandLineOption("timeout", value: "SECONDS", help: "longest time of one request", fallback: "600"),
            CommandLineOption(
                "drain-timeout", value: "SECONDS", help: "longest wait for streams at a stop", fallback: "30"),
            CommandLineOption(
                "served-model-name", value: "NAME", help: "name of the model", shownFallback: "its folder's"),
            CommandLineOption(
                "generation-config", value: "auto|ignore",
                help: "take the defaults of a request's sampling from the checkpoint's generation_config.json, or not",
                fallback: "auto", choices: ["auto", "ignore"]),
            CommandLineOption(
                "api-keys-file", value: "FILE", help: "keys that HTTP clients must present, one a line: KEY [REQUESTS]",
                guards: true),
            CommandLineOption(
                "key-requests", value: "N", help: "requests a key may have at once if its line does not say",
                fallback: "256"),
            CommandLineOption(
                "cors-origin", value: "ORIGIN,…", help: "origins whose pages may call, or *", shownFallback: "none"),
            CommandLineOption("http-connections", value: "N", help: "open HTTP connections", fallback: "4096"),
            CommandLineOption(
                "http-keep-alive", value: "SECONDS",
                help: "how long an HTTP connection is kept without a request; more than the proxy in front keeps it",
                fallback: "120"),
            CommandLineOption(
                "sse-ping", value: "SECONDS",
                help: "silence within which a stream gets a comment, so that no proxy gives it up; 0: never",
                fallback: "15"),
            CommandLineOption(
                "http-body", value: "BYTES",
                help: "longest body of a request",
                shownFallback: "8388608, or 32 for each token of the context if that is more"),
            CommandLineOption("byte-tokenizer", help: "without tokenizer.json, treat ids 0…255 as bytes of UTF-8"),
        ])
}
