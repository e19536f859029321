import EventLoop
import Foundation
import HTTP
import Observability
import RPC

/// How the HTTP face treats its clients.
public struct HTTPFaceOptions: Sendable {
    /// Keys that clients must present.
    package var keys = APIKeys()
    /// Origins whose pages may call, or "*" for all; empty for none.
    public var corsOrigins: Set<String> = []
    /// Seconds within which an event stream gets a comment when it is silent; 0 for never.
    public var pingSeconds: UInt64 = 15
    /// Longest body of a request in bytes; nil for what a prompt that fills the context may take.
    public var bodyBytes: Int?
    /// Bounds of the server.
    public var limits = HTTPLimits()
    /// Where requests are logged; nil for nowhere.
    public var logger: Logger?

    /// No keys, no other origins, the default limits.
    public init() {}

    /// Silence after which a comment is sent, in microseconds: a little early, so that it is there in time.
    var pingMicroseconds: UInt64 { pingSeconds * 950_000 }

    /// Bytes of a body that a token may take: a long token of text with its escapes, or an id with its comma.
    private static let tokenBytes = 32

    /// The bounds of a server whose model has a context of `tokens`.
    func limits(context tokens: Int) -> HTTPLimits {
        var limits = limits
        limits.bodyBytes = bodyBytes ?? max(limits.bodyBytes, min(tokens, 1 << 32) * Self.tokenBytes)
        limits.totalBodyBytes = max(limits.totalBodyBytes, 8 * limits.bodyBytes)
        return limits
    }
}

/// The gateway's HTTP face: OpenAI's and SGLang's interfaces over the completion engine. Confined to its loop.
final class HTTPFace: HTTPHandler, Sendable {
    struct State {
        fileprivate var keys: APIKeys
        fileprivate var work = 0
        fileprivate(set) var isDraining = false
        /// Counters of the services, for `/metrics` and `/get_server_info`.
        var counters: @Sendable () async -> [String: Int64] = { [:] }
        /// Has the instances forget what they keep of requests; returns how many did.
        var flush: @Sendable () async -> Int = { 0 }
    }

    let engine: CompletionEngine
    let telemetry: Telemetry
    private let metrics: GatewayMetrics
    private let options: HTTPFaceOptions
    let state: LoopBound<State>
    private let drainers = Waiters()
    /// When the gateway started, seconds since 1970.
    let startSeconds = Int(Date().timeIntervalSince1970)

    init(
        engine: CompletionEngine, options: HTTPFaceOptions, telemetry: Telemetry, metrics: GatewayMetrics
    ) {
        self.engine = engine
        self.telemetry = telemetry
        self.metrics = metrics
        self.options = options
        state = LoopBound(State(keys: options.keys), on: engine.loop)
    }

    // MARK: Drain

    /// From now on `/ready` says 503 and completions are refused; returns when those at work are done, or after a while.
    func drain(withinMicroseconds microseconds: UInt64) async {
        state.isDraining = true
        await drainers.wait(engine.loop, atMostMicroseconds: microseconds) { state.work > 0 }
    }

    // MARK: Requests

    func handle(_ request: HTTPRequest, _ response: HTTPResponse) async {
        let visit = Visit(request)
        response.headers = [
            ("x-request-id", visit.id),
            ("traceparent", visit.trace.traceparent(span: UInt64.random(in: 1...UInt64.max))),
        ]
        response.headers += CrossOrigin.headers(for: request, allowed: options.corsOrigins)
        var failure: APIError?
        do throws(APIError) {
            try await answer(request, response, visit)
        } catch {
            failure = error
            fail(response, error)
        }
        over(request, response, visit, failure)
    }

    /// Who asks: the name and the trace of a request.
    private struct Visit {
        let id: String
        let trace: TraceContext
        let started = Stopwatch.now

        init(_ request: HTTPRequest) {
            id = RequestHeaders.id(request)
            trace = RequestHeaders.trace(request)
        }
    }

    /// Counts, logs and records a request that has been answered. Requests for information are logged only when somebody
    /// looks for a fault.
    private func over(_ request: HTTPRequest, _ response: HTTPResponse, _ visit: Visit, _ failure: APIError?) {
        let status = response.status ?? 499
        metrics.count(status: status)
        let isWork = Endpoint(path: request.path)?.isWork ?? false
        let now = Stopwatch.now
        guard let logger = options.logger else { return }
        let level: LogLevel = !isWork ? .debug : status >= 500 ? .warning : .info
        guard level >= logger.minimumLevel else { return }
        logger.adding([
            "request": .string(visit.id), "trace": .string(visit.trace.id), "method": .string(request.method),
            "path": .string(String(request.path.prefix(128))), "status": LogValue(status),
            "milliseconds": .double(Double((now - visit.started) / 1000) / 1000),
        ]).log(level, "request", failure.map { ["error": .string($0.message)] } ?? [:])
    }

    private func answer(
        _ request: HTTPRequest, _ response: HTTPResponse, _ visit: Visit
    ) async throws(APIError) {
        guard let endpoint = Endpoint(path: request.path) else {
            throw APIError(
                404, type: "invalid_request_error", code: "not_found",
                message: "there is nothing at \(request.path.prefix(256))")
        }
        if CrossOrigin.isPreflight(request, allowed: options.corsOrigins) {
            response.headers += CrossOrigin.preflightHeaders(endpoint, request)
            return response.send(status: 204, contentType: "text/plain", body: [])
        }
        guard endpoint.answers(request.method) else {
            response.headers.append(("Allow", endpoint.methods.joined(separator: ", ")))
            throw APIError(
                405, type: "invalid_request_error", code: "method_not_allowed",
                message: "\(request.method) is not answered at \(request.path.prefix(256))")
        }
        let key = endpoint.needsKey ? try state.keys.enter(authorization: request.header("authorization")) : nil
        defer { state.keys.leave(key) }
        guard endpoint.isWork else { return try await inform(endpoint, request, response) }
        guard !state.isDraining else {
            throw APIError(
                503, type: "server_error", code: "service_unavailable", message: "The gateway is about to stop.",
                retryAfterSeconds: 5)
        }
        state.work += 1
        defer {
            state.work -= 1
            if state.work == 0 { drainers.wake() }
        }
        try await complete(endpoint, request, response, visit)
    }

    private func complete(
        _ endpoint: Endpoint, _ request: HTTPRequest, _ response: HTTPResponse, _ visit: Visit
    ) async throws(APIError) {
        var context = try RequestHeaders.context(request)
        (context.trace, context.name) = (visit.trace, visit.id)
        let (parser, prefix): (CompletionJob.Parser, String) =
            switch endpoint {
            case .chat: (CompletionJob.chat, "chatcmpl-")
            case .generate: (CompletionJob.generate, "gen-")
            default: (CompletionJob.completions, "cmpl-")
            }
        let number = telemetry.requests.begin(.tokenizing, trace: visit.trace, name: visit.id, now: visit.started)
        defer { telemetry.requests.end(number, as: .request) }
        let job = try await engine.job(in: try RequestHeaders.body(request), parser)
        metrics.count(job.fields)
        telemetry.requests.enter(.answering, number, promptTokens: job.promptTokens)
        let runner = CompletionRunner(
            job, engine: engine, response: response, context: context, id: prefix + RequestHeaders.randomID(),
            pingMicroseconds: options.pingMicroseconds)
        try await runner.run()
    }

    private func fail(_ response: HTTPResponse, _ error: APIError) {
        if error.code == APIError.unsupportedField || error.code == APIError.unknownField {
            metrics.countRefusedField()
        }
        let retry = error.retryAfterSeconds.map { [("Retry-After", String($0))] } ?? []
        response.send(status: error.status, contentType: "application/json", headers: retry, body: error.json)
    }
}
