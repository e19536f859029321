import Foundation
import Glibc

/// A child process that is talked to line by line, and stopped with its owner.
final class PeerProcess {
    private let process = Process()
    private let input = Pipe()
    private let output = Pipe()
    private let name: String
    private var text = Data()

    /// - processor: the only one it may run on; nil leaves that to the system.
    init(_ executable: URL, _ arguments: [String], processor: Int? = nil) throws {
        name = executable.lastPathComponent
        process.executableURL = processor == nil ? executable : URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = (processor.map { ["taskset", "-c", "\($0)", executable.path] } ?? []) + arguments
        process.standardInput = input
        process.standardOutput = output
        do { try process.run() } catch { throw BenchError("\(executable.path) cannot be started: \(error)") }
    }

    /// The next line of its output.
    func readLine() throws -> String {
        while true {
            if let end = text.firstIndex(of: UInt8(ascii: "\n")) {
                defer { text = Data(text[(end + 1)...]) }
                return String(decoding: text[..<end], as: UTF8.self)
            }
            let more = output.fileHandleForReading.availableData
            guard !more.isEmpty else { throw BenchError("\(name) ended before it answered") }
            text += more
        }
    }

    /// The number after "port" in the first line of its output that has one.
    func readPort() throws -> Int {
        while true {
            let words = try readLine().split(whereSeparator: { " :".contains($0) })
            if let index = words.firstIndex(of: "port"), index + 1 < words.count, let port = Int(words[index + 1]) {
                return port
            }
        }
    }

    /// Processor time that its threads have used, in seconds: from the scheduler, which counts nanoseconds. (The ticks of
    /// `/proc/PID/stat` are as long as what is measured.)
    var processorSeconds: Double {
        get throws {
            let folder = "/proc/\(process.processIdentifier)/task"
            return try FileManager.default.contentsOfDirectory(atPath: folder).reduce(0) { sum, thread in
                let times = try String(contentsOfFile: "\(folder)/\(thread)/schedstat", encoding: .utf8)
                guard let nanoseconds = times.split(separator: " ").first.flatMap({ Double($0) }) else {
                    throw BenchError("/proc does not tell the processor time of \(name)")
                }
                return sum + nanoseconds * 1e-9
            }
        }
    }

    func write(_ line: String) { input.fileHandleForWriting.write(Data((line + "\n").utf8)) }

    func stop() {
        try? input.fileHandleForWriting.close()
        process.terminate()
        process.waitUntilExit()
    }
}

/// Where the executables of this build lie.
enum Executables {
    static let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    static func named(_ name: String) -> URL { folder.appendingPathComponent(name) }
}
