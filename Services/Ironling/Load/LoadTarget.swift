import Checkpoint
import EventLoop
import Foundation
import HTTP
import LoadTesting
import RPC
import ServiceSupport

/// Where the load goes: an HTTP server, a gateway's binary port, or services started for it.
struct LoadTarget {
    /// "http" or "binary".
    let backend: String
    /// As the report shows it.
    let name: String
    private let http: HTTPTransport?
    private let values: OptionValues

    init(_ values: OptionValues, _ loop: UVLoop) throws {
        self.values = values
        let given = ["base-url", "gateway", "model"].filter { values.text($0) != nil }
        guard given.contains("base-url") ? !given.contains("gateway") : !given.isEmpty else {
            throw UsageError("one of --base-url, --gateway and --model is required")
        }
        if let text = values.text("base-url") {
            let url = try Self.parse(text)
            try Self.check(url.host, values)
            backend = "http"
            name = text
            http = HTTPTransport(
                client: HTTPClient(loop: loop, host: url.host, port: url.port), prefix: url.path,
                model: values.text("served-model-name"), apiKey: try Self.key(values))
        } else {
            if values.text("gateway") != nil { try Self.check(try values.address("gateway").host, values) }
            backend = "binary"
            name = values.text("gateway") ?? values.text("model") ?? ""
            http = nil
        }
    }

    /// Runs `body` with the way to ask for completions.
    func with<Value>(_ loop: UVLoop, _ body: (any CompletionTransport) async throws -> Value) async throws -> Value {
        guard let http else {
            var limits = RPCLimits()
            limits.pendingCalls = 2 * LoadPlan.concurrencyBound
            return try await GatewaySession.with(values, loop, limits: limits) { client in
                try await body(BinaryTransport(client: client))
            }
        }
        defer { http.client.close() }
        return try await body(http)
    }

    /// Token ids that the model knows: as given, as the checkpoint or the server says, or 256, which every one has.
    func vocabulary() async throws -> Int {
        if values.text("vocabulary-size") != nil { return try values.integer("vocabulary-size", in: 1...1 << 24) }
        if let http {
            struct Info: Decodable { let vocab_size: Int? }
            let info = try? await http.get("/get_server_info", as: Info.self)
            return max(1, info?.vocab_size ?? 256)
        }
        guard values.text("model") != nil else { return 256 }
        return try ServiceInputs.checkpoint(values).configuration.vocabularySize
    }

    static func parse(_ text: String) throws(UsageError) -> (host: String, port: Int, path: String) {
        guard let parts = URLComponents(string: text), parts.scheme == "http", let host = parts.host, !host.isEmpty,
            parts.query == nil
        else { throw UsageError("--base-url takes http://HOST[:PORT][/PATH], not \"\(text)\"") }
        var path = parts.path
        while path.hasSuffix("/") { path.removeLast() }
        if path.hasSuffix("/v1") { path.removeLast(3) }
        return (SocketAddress.withoutBrackets(host), parts.port ?? 80, path)
    }

    /// Load goes to this machine unless the user says that another is meant.
    private static func check(_ host: String, _ values: OptionValues) throws(UsageError) {
        let isHere =
            ["localhost", "::1"].contains(host) || (host.hasPrefix("127.") && host.split(separator: ".").count == 4)
        guard isHere || values.isOn("allow-remote") else {
            throw UsageError("\(host) is another machine: --allow-remote puts a load on it")
        }
    }

    static func key(_ values: OptionValues) throws -> String? {
        let bytes = try ServiceProcess.secret(values, option: "api-key-file")
        let key = String(decoding: bytes, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        return key.isEmpty ? nil : key
    }
}
