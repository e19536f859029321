import Checkpoint
import Foundation
import Testing

/// The executables as they were built, started as a user starts them.
enum Executables {
    static let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    static let goldens = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures/golden")

    /// The folder of a golden checkpoint or of the demo model.
    static func modelFolder(_ name: String) -> URL {
        guard name == "ling-tiny" else { return goldens.appendingPathComponent(name) }
        let root = goldens.deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        return root.appendingPathComponent("Models/ling-tiny")
    }

    struct Output {
        let status: Int32
        let output: String
        let error: String
    }

    static func ironling(_ arguments: [String]) throws -> Output { try run("ironling", arguments) }

    static func run(
        _ program: String, _ arguments: [String], environment: [String: String] = [:]
    ) throws -> Output {
        let process = Process()
        process.executableURL =
            program.hasPrefix("/") ? URL(fileURLWithPath: program) : folder.appendingPathComponent(program)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
        let (output, error) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = error
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        let complaint = error.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return Output(
            status: process.terminationStatus, output: String(decoding: text, as: UTF8.self),
            error: String(decoding: complaint, as: UTF8.self))
    }

    /// What `ironling` takes of a processor, which does not depend on what else runs.
    static func processorSeconds(_ arguments: [String]) throws -> Double {
        let program = folder.appendingPathComponent("ironling").path
        let script = #"exec 3>&2; TIMEFORMAT="%U %S"; { time "$@" >&3 2>&3; } 2>&1"#
        let result = try run("/bin/bash", ["-c", script, "bash", program] + arguments)
        let parts = result.output.split(whereSeparator: \.isWhitespace).compactMap { Double($0) }
        try #require(parts.count == 2, "\(result)")
        return parts[0] + parts[1]
    }

    struct Completion: Decodable, Equatable {
        let prompt_ids: [UInt32]
        let ids: [UInt32]
        let logprobs: [Float]
        let text: String
        let finish_reason: String
    }

    static func generate(_ model: String, prompt: [UInt32], count: Int, _ extra: [String]) throws -> Completion {
        let result = try ironling(
            [
                "generate", "--model", goldens.appendingPathComponent(model).path, "--prompt-ids",
                prompt.map(String.init).joined(separator: ","), "--max-tokens", "\(count)", "--ignore-eos", "--json",
            ] + extra)
        try #require(result.status == 0, "\(model) \(extra): \(result.error)")
        return try JSONDecoder().decode(Completion.self, from: Data(result.output.utf8))
    }
}

/// The arrays of a golden file.
struct GoldenArrays {
    private let header: SafetensorsHeader
    private let data: Data

    init(_ model: String) throws {
        data = try Data(
            contentsOf: Executables.goldens.appendingPathComponent(model).appendingPathComponent("golden.safetensors"))
        let length = try SafetensorsHeader.jsonByteCount(
            prefix: Array(data.prefix(8)), fileByteCount: data.count, file: "golden")
        header = try SafetensorsHeader(json: data[8..<8 + length], fileByteCount: data.count, file: "golden")
    }

    func words(_ name: String) throws -> [UInt32] {
        let entry = try #require(header.tensors[name])
        let bytes = Data(data[entry.offset..<entry.offset + entry.byteCount])
        return bytes.withUnsafeBytes { raw in
            (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) }
        }
    }

    /// log softmax of row `row` of the logits `name` at `token`.
    func logprob(_ name: String, row: Int, token: UInt32, vocabulary: Int) throws -> Double {
        let logits = try words(name)[row * vocabulary..<(row + 1) * vocabulary].map { Double(Float(bitPattern: $0)) }
        let highest = logits.max() ?? 0
        return logits[Int(token)] - highest - log(logits.reduce(0) { $0 + exp($1 - highest) })
    }
}
