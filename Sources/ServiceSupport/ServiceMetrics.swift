import EventLoop
import Foundation
import Glibc
import HTTP
import Observability

/// A service's counters in the Prometheus text format.
public enum ServiceMetrics {
    /// Media type of the text format.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// What a service keeps in `registry`, and its counters, each as `ironling_SERVICE_NAME` with the type and unit of its
    /// `StatusMetric`; those called `attention0.NAME` were asked of a peer and become
    /// `ironling_attention_NAME{instance="0"}`. Those of this process come with them.
    public static func text(service: String, _ counters: [String: Int64], _ registry: MetricsRegistry) -> String {
        var samples = counters.map { sample(service, $0.key, $0.value) }
        samples.append(
            MetricSample("process_open_fds", .gauge, help: "Open descriptors.", value: Double(openDescriptors())))
        samples.append(
            MetricSample(
                "process_resident_memory_bytes", .gauge, help: "Resident memory.", value: Double(residentBytes())))
        return registry.prometheusText(adding: samples)
    }

    private static func sample(_ service: String, _ counter: String, _ value: Int64) -> MetricSample {
        let parts = counter.split(separator: ".", maxSplits: 1).map(String.init)
        let peer = parts.count == 2 ? parts[0] : ""
        let role = peer.isEmpty ? service : String(peer.prefix { !$0.isNumber })
        let metric = StatusMetric.of(counter: parts.last ?? counter)
        var labels = metric.labels
        if !peer.isEmpty { labels["instance"] = String(peer.dropFirst(role.count)) }
        return MetricSample(
            "ironling_\(role)_\(metric.name)", metric.kind, help: metric.help, labels: labels,
            value: Double(value) * metric.scale)
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
