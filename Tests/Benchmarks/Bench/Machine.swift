import Foundation

/// What the numbers were measured on.
struct Machine: Encodable {
    let cpu: String
    let processors: Int
    let threads: Int
    let memoryBytes: UInt64
    let kernel: String
    let date: String

    init(threads: Int) {
        let lines = ((try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? "").split(separator: "\n")
        let model = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last
        cpu = model.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
        processors = ProcessInfo.processInfo.activeProcessorCount
        self.threads = threads
        memoryBytes = ProcessInfo.processInfo.physicalMemory
        kernel = ProcessInfo.processInfo.operatingSystemVersionString
        date = ISO8601DateFormatter().string(from: Date())
    }
}
