import EventLoop
import HTTP
import Observability

/// What a service shows to those who run it, on a port of its own: `/metrics`, `/trace` and `/debug/requests`.
final class AdminEndpoint: HTTPHandler {
    /// Longest window of `/trace`.
    static let maximumSeconds = 30.0
    /// Requests listed by `/debug/requests` at most.
    static let maximumRequests = 1000

    private let service: any RunningService
    private let loop: any Loop

    init(_ service: any RunningService, loop: any Loop) {
        self.service = service
        self.loop = loop
    }

    func handle(_ request: HTTPRequest, _ response: HTTPResponse) async {
        guard ["/metrics", "/trace", "/debug/requests"].contains(request.path) else {
            return response.sendError(
                status: 404, type: "invalid_request_error",
                message: "only /metrics, /trace and /debug/requests are answered here")
        }
        guard ["GET", "HEAD"].contains(request.method) else {
            return response.sendError(
                status: 405, type: "invalid_request_error",
                message: "\(request.method) is not answered at \(request.path)")
        }
        switch request.path {
        case "/metrics":
            let text = ServiceMetrics.text(service: service.name, await service.counters(), service.telemetry.metrics)
            response.send(status: 200, contentType: ServiceMetrics.contentType, body: Array(text.utf8))
        case "/trace": await trace(request, response)
        default:
            let json = LiveRequestsReport(
                service: service.name, instance: service.instanceID, service.telemetry.requests
            )
            .json(limit: Self.maximumRequests)
            response.send(status: 200, contentType: "application/json", body: json)
        }
    }

    /// The spans of the traces `id`, or of everything that happens in the next `seconds`.
    private func trace(_ request: HTTPRequest, _ response: HTTPResponse) async {
        let spans = service.telemetry.spans
        let wanted: TraceQuery
        do throws(TraceQueryError) { wanted = try TraceQuery(request.query) } catch {
            return response.sendError(status: 400, type: "invalid_request_error", message: error.description)
        }
        var query = wanted.query
        if let seconds = wanted.seconds {
            query.since = Stopwatch.now
            spans.openWindow()
            await Waiters().wait(loop, atMostMicroseconds: UInt64(seconds * 1e6)) { !Task.isCancelled }
            spans.closeWindow()
            query.until = Stopwatch.now
        }
        let report = SpanReport(
            service: service.name, instance: service.instanceID, clock: Stopwatch.now, recorded: spans.recordedCount,
            capacity: spans.capacity, spans: spans.spans(query))
        response.send(status: 200, contentType: "application/json", body: report.json)
    }
}

/// The query of `/trace`.
struct TraceQuery: Sendable, Equatable {
    /// Which spans.
    var query = SpanRecorder.Query()
    /// How long everything is recorded before the answer; nil for what was recorded before.
    var seconds: Double?

    /// Parses `id=HEX[,HEX…]`, `seconds=N` or nothing.
    init(_ text: String) throws(TraceQueryError) {
        for pair in text.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            switch (parts[0], parts.count) {
            case ("id", 2): query.traces = try Self.traces(parts[1])
            case ("seconds", 2):
                guard let number = Double(parts[1]), (0.01...AdminEndpoint.maximumSeconds).contains(number) else {
                    throw TraceQueryError("seconds must be a number from 0.01 to \(AdminEndpoint.maximumSeconds)")
                }
                seconds = number
            default:
                throw TraceQueryError("/trace takes id=TRACE[,TRACE…] or seconds=N, not \"\(parts[0].prefix(64))\"")
            }
        }
        guard query.traces.isEmpty || seconds == nil else {
            throw TraceQueryError("id and seconds exclude each other")
        }
    }

    private static func traces(_ text: String) throws(TraceQueryError) -> [TraceContext] {
        let names = text.split(separator: ",", omittingEmptySubsequences: false)
        guard (1...SpanRecorder.Query.maximumTraces).contains(names.count) else {
            throw TraceQueryError("id must name 1 to \(SpanRecorder.Query.maximumTraces) traces")
        }
        var traces: [TraceContext] = []
        for name in names {
            guard let trace = TraceContext(id: name) else {
                throw TraceQueryError("id must be 32 lower-case hexadecimal digits, not \"\(name.prefix(64))\"")
            }
            traces.append(trace)
        }
        return traces
    }
}

/// A query that cannot be answered.
struct TraceQueryError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
