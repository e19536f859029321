import EventLoop
import Foundation
import Glibc
import HTTP
import Observability
import RPC

/// A service's counters in the Prometheus text format.
public enum ServiceMetrics {
    /// Media type of the text format.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// Counters of a service, each as `ironling_SERVICE_NAME`; those called `attention0.NAME` were asked of a peer and
    /// become `ironling_attention_NAME{instance="0"}`. Those of this process come with them.
    public static func text(service: String, _ counters: [String: Int64]) -> String {
        let registry = MetricsRegistry()
        for (name, value) in counters {
            let parts = name.split(separator: ".", maxSplits: 1)
            let peer = parts.count == 2 ? String(parts[0]) : ""
            let role = peer.prefix { !$0.isNumber }
            let help = "Counter \(parts.last ?? "") of \(peer.isEmpty ? service : String(role))."
            registry.gauge(
                "ironling_\(peer.isEmpty ? service : String(role))_\(parts.last ?? "")", help: help,
                labels: peer.isEmpty ? [:] : ["instance": String(peer.dropFirst(role.count))]
            ).set(Double(value))
        }
        registry.gauge("process_open_fds", help: "Open descriptors.").set(Double(openDescriptors()))
        registry.gauge("process_resident_memory_bytes", help: "Resident memory.").set(Double(residentBytes()))
        return registry.prometheusText()
    }

    private static func openDescriptors() -> Int {
        // The directory that is being read is one of them.
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count).map { $0 - 1 } ?? 0
    }

    private static func residentBytes() -> Int {
        let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        let fields = text.split(separator: " ")
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * sysconf(Int32(_SC_PAGESIZE)) : 0
    }
}

extension RPCServer {
    /// What a service reports of its server: connections, calls in flight, those that stream, handlers not returned.
    public var counters: [String: Int64] {
        [
            "connections": Int64(connectionCount), "calls": Int64(callCount), "streams": Int64(streamCount),
            "tasks": Int64(taskCount),
        ]
    }
}

/// Answers `GET /metrics` on a port of its own.
final class MetricsFace: HTTPHandler {
    private let service: any RunningService

    init(_ service: any RunningService) { self.service = service }

    func handle(_ request: HTTPRequest, _ response: HTTPResponse) async {
        guard request.path == "/metrics" else {
            return response.sendError(
                status: 404, type: "invalid_request_error", message: "only /metrics is answered here")
        }
        guard ["GET", "HEAD"].contains(request.method) else {
            return response.sendError(
                status: 405, type: "invalid_request_error", message: "\(request.method) is not answered at /metrics")
        }
        let text = ServiceMetrics.text(service: service.name, await service.counters())
        response.send(status: 200, contentType: ServiceMetrics.contentType, body: Array(text.utf8))
    }
}
