import Checkpoint
import EventLoop
import Foundation
import Numerics
import RPC
import Testing
import WireProtocol

/// The published kernel's golden calls, answered by the experts service: it runs V2 with the real tensors on the
/// simulated device.
@Suite struct ExpertsKernelTests {
    @Test(arguments: ["actquant-rolling", "actquant-shared", "bf16-shared", "w8a16-shared"])
    func theServiceAnswersAsThePublishedKernel(name: String) async throws {
        let golden = try KernelFile(name)
        let folder = try golden.checkpoint()
        defer { try? FileManager.default.removeItem(at: folder) }
        let tile = ["bt", "bf", "bts", "btc", "bse"].map { "\($0)=\(golden.number($0))" }.joined(separator: ",")
        let numerics = golden.number("activation_quant") == 1 ? "faithful" : "bf16"
        let service = try RunningExperts(
            folder, ["--slice", "v7x-4", "--ep", "\(golden.number("devices"))", "--numerics", numerics, "--tile", tile])
        defer { service.stop() }
        let reply = try await service.call(
            golden.request, golden.body(), fingerprint: try Checkpoint(directory: folder).fingerprint)
        #expect(try ExpertsReply(decoding: reply.metadata).simulatedPicoseconds > 1_000_000)
        let body = try #require(reply.body)
        let expected = try golden.bfloats("output_bf16")
        let values = try #require(body.elements(Float.self, at: 0, count: expected.count))
        let hidden = golden.number("hidden")
        var equal = 0
        for first in stride(from: 0, to: expected.count, by: hidden) {
            let step = expected[first..<first + hidden].reduce(0) { max($0, $1.magnitude) }.binade * 0x1p-7
            for index in first..<first + hidden {
                if values[index] == expected[index] { equal += 1 }
                #expect((values[index] - expected[index]).magnitude <= step)
            }
        }
        #expect(Double(equal) >= 0.998 * Double(expected.count), "\(equal) of \(expected.count)")
    }

    /// Plain arithmetic: every reply carries the call's time on the slice from the first on, and so do the counters over
    /// the wire and at `/metrics`, engine by engine.
    @Test func everyReplyAndTheMetricsCarryTheSimulatedTime() async throws {
        let golden = try KernelFile("bf16-shared")
        let folder = try golden.checkpoint()
        defer { try? FileManager.default.removeItem(at: folder) }
        let service = try RunningExperts(folder, ["--slice", "v7x-4", "--metrics-port", "0"])
        defer { service.stop() }
        let fingerprint = try Checkpoint(directory: folder).fingerprint
        var sum: UInt64 = 0
        for _ in 0..<3 {
            let reply = try await service.call(golden.request, golden.body(), fingerprint: fingerprint)
            let time = try ExpertsReply(decoding: reply.metadata).simulatedPicoseconds
            #expect(time > 1_000_000)
            sum += time
        }
        let counters = try await service.counters(fingerprint: fingerprint)
        #expect(counters["simulated_calls"] == 3)
        #expect(counters["simulated_picoseconds"] == Int64(sum))
        let metrics = try service.metrics()
        func seconds(_ picoseconds: Int64) -> Double { Double(picoseconds) * 1e-12 }
        #expect(metrics["ironling_experts_simulated_calls_total"] == 3)
        #expect(metrics["ironling_experts_simulated_seconds_total"] == seconds(Int64(sum)))
        for engine in ["matrix", "vector", "scalar", "hbm", "ici"] {
            let time = counters["simulated_\(engine)_picoseconds", default: 0]
            #expect(time > 0 && time < Int64(sum), "\(engine)")
            let name = "ironling_experts_simulated_engine_seconds_total{engine=\"\(engine)\"}"
            #expect(metrics[name] == seconds(time), "\(metrics.keys.sorted())")
        }
    }

    /// A call that ran on the device is counted with the time it took there.
    @Test func callsInTheKernelsNumericsAreCounted() async throws {
        let golden = try KernelFile("bf16-shared")
        let folder = try golden.checkpoint()
        defer { try? FileManager.default.removeItem(at: folder) }
        let service = try RunningExperts(folder, ["--numerics", "bf16"])
        defer { service.stop() }
        let fingerprint = try Checkpoint(directory: folder).fingerprint
        let reply = try await service.call(golden.request, golden.body(), fingerprint: fingerprint)
        let time = try ExpertsReply(decoding: reply.metadata).simulatedPicoseconds
        let counters = try await service.counters(fingerprint: fingerprint)
        #expect(counters["simulated_calls"] == 1 && counters["simulated_picoseconds"] == Int64(time))
    }

    @Test func aSliceThatDoesNotExistIsRefused() throws {
        let golden = try KernelFile("bf16-shared")
        let folder = try golden.checkpoint()
        defer { try? FileManager.default.removeItem(at: folder) }
        let process = RunningExperts.process(folder, ["--slice", "v7x-5"])
        let complaint = Pipe()
        process.standardError = complaint
        try process.run()
        let text = String(decoding: complaint.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus != 0)
        #expect(text.contains("there is no slice \"v7x-5\""))
    }
}

/// `ironling-experts` on a free port.
final class RunningExperts: @unchecked Sendable {
    private let process: Process
    private let port: Int
    private let metricsPort: Int?
    private let loop = UVLoop()

    var processID: Int32 { process.processIdentifier }

    static func process(_ model: URL, _ extra: [String]) -> Process {
        let process = Process()
        process.executableURL = Executables.folder.appendingPathComponent("ironling-experts")
        process.arguments = ["--model", model.path, "--port", "0"] + extra
        return process
    }

    init(_ model: URL, _ extra: [String]) throws {
        process = Self.process(model, extra)
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        var text = ""
        while !text.contains(": experts") {
            let data = output.fileHandleForReading.availableData
            try #require(!data.isEmpty, "the service ended before it was ready")
            text += String(decoding: data, as: UTF8.self)
        }
        while extra.contains("--metrics-port"), !text.contains("metrics on port ") {
            let data = output.fileHandleForReading.availableData
            try #require(!data.isEmpty, "the service ended before it told its metrics' port")
            text += String(decoding: data, as: UTF8.self)
        }
        func number(after words: String) -> Int? {
            let parts = text.components(separatedBy: words)
            return parts.count > 1 ? Int(parts[1].prefix { $0.isNumber }) : nil
        }
        port = try #require(number(after: "ready on port "))
        metricsPort = number(after: "metrics on port ")
        loop.start()
    }

    func stop() {
        process.terminate()
        process.waitUntilExit()
        loop.stop()
        loop.join()
    }

    func call(_ request: ExpertsRequest, _ body: AlignedBuffer, fingerprint: String) async throws -> RPCPayload {
        try await call(
            .expertsForward, RPCPayload(metadata: request.encoded(), body: body), fingerprint: fingerprint)
    }

    /// What the service answers to `status`.
    func counters(fingerprint: String) async throws -> [String: Int64] {
        let reply = try await call(.status, RPCPayload(), fingerprint: fingerprint)
        return try StatusReply(decoding: reply.metadata).counters
    }

    /// What the service shows at `/metrics`, without labels.
    func metrics() throws -> [String: Double] {
        let port = try #require(metricsPort)
        let socket = try #require(RawSocket(port: port))
        socket.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        var values: [String: Double] = [:]
        for line in socket.receive().split(whereSeparator: \.isNewline) {
            let parts = line.split(separator: " ")
            if parts.count == 2, line.first != "#" { values[String(parts[0])] = Double(parts[1]) }
        }
        return values
    }

    private func call(_ method: Method, _ payload: RPCPayload, fingerprint: String) async throws -> RPCPayload {
        let (loop, port) = (loop, port)
        return try await Task(executorPreference: loop) {
            let client = RPCClient(
                loop: loop, host: "127.0.0.1", port: port, identity: PeerIdentity(role: "client"), role: "experts",
                fingerprint: fingerprint, secret: [])
            client.start()
            defer { client.close() }
            try await client.waitReady(timeoutMicroseconds: 10_000_000)
            return try await client.call(method, payload, timeoutMicroseconds: 60_000_000)
        }.value
    }
}

/// A golden of the kernel as a checkpoint with one MoE layer, and as a call of it.
struct KernelFile {
    private static let layer = 7
    private let data: Data
    private let header: SafetensorsHeader
    private let numbers: [String: Int]

    init(_ name: String) throws {
        data = try Data(contentsOf: Executables.goldens.appendingPathComponent("fused-moe-v2/\(name).safetensors"))
        let length = try SafetensorsHeader.jsonByteCount(
            prefix: Array(data.prefix(8)), fileByteCount: data.count, file: name)
        let json = Data(data[8..<8 + length])
        header = try SafetensorsHeader(json: json, fileByteCount: data.count, file: name)
        let object = try JSONSerialization.jsonObject(with: json) as? [String: Any]
        numbers = (object?["__metadata__"] as? [String: String] ?? [:]).compactMapValues { Int($0) }
    }

    func number(_ name: String) -> Int { numbers[name] ?? 0 }

    private func bytes(_ name: String) throws -> [UInt8] {
        let entry = try #require(header.tensors[name], "tensor \(name)")
        return Array(data[entry.offset..<entry.offset + entry.byteCount])
    }

    func bfloats(_ name: String) throws -> [Float] {
        try bytes(name).withUnsafeBytes { raw in
            (0..<raw.count / 2).map {
                BFloat16(bitPattern: raw.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)).float
            }
        }
    }

    var request: ExpertsRequest {
        ExpertsRequest(
            layer: UInt32(Self.layer), rowCount: UInt32(number("tokens")), hidden: UInt32(number("hidden")),
            pairCount: UInt32(number("tokens") * number("top_k")), sharedCount: UInt32(number("tokens")),
            combinedTopK: UInt32(number("top_k")))
    }

    func body() throws -> AlignedBuffer {
        let offsets = request.bodyOffsets
        let buffer = AlignedBuffer(count: offsets[5])
        let (tokens, topK) = (number("tokens"), number("top_k"))
        let rows = try bfloats("tokens_bf16")
        for (index, value) in rows.enumerated() {
            buffer.pointer.storeBytes(of: value, toByteOffset: 4 * index, as: Float.self)
        }
        for pair in 0..<tokens * topK {
            buffer.pointer.storeBytes(of: Int32(pair / topK), toByteOffset: offsets[1] + 4 * pair, as: Int32.self)
        }
        for (name, offset) in [("topk_ids", offsets[2]), ("topk_weights", offsets[3])] {
            for (index, byte) in try bytes(name).enumerated() {
                buffer.pointer.storeBytes(of: byte, toByteOffset: offset + index, as: UInt8.self)
            }
        }
        for row in 0..<tokens {
            buffer.pointer.storeBytes(of: Int32(row), toByteOffset: offsets[4] + 4 * row, as: Int32.self)
        }
        return buffer
    }

    /// A folder with `config.json` and the experts' tensors, [out, in] as checkpoints have them.
    func checkpoint() throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("kernel-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let isFloat8 = number("fp8") == 1
        let base = Executables.goldens.appendingPathComponent("\(isFloat8 ? "fp8" : "base")/config.json")
        var config = try #require(
            try JSONSerialization.jsonObject(with: Data(contentsOf: base)) as? [String: Any])
        let changes: [String: Any] = [
            "hidden_size": number("hidden"), "moe_intermediate_size": number("intermediate"),
            "moe_shared_expert_intermediate_size": number("intermediate"), "num_shared_experts": number("shared"),
            "num_experts": number("experts"), "num_experts_per_tok": number("top_k"), "n_group": 1, "topk_group": 1,
            "num_hidden_layers": Self.layer + 1, "first_k_dense_replace": Self.layer,
        ]
        config.merge(changes) { $1 }
        try JSONSerialization.data(withJSONObject: config).write(to: folder.appendingPathComponent("config.json"))
        try tensors().write(to: folder.appendingPathComponent("model.safetensors"))
        return folder
    }

    private func tensors() throws -> Data {
        var object: [String: Any] = [:]
        var content = Data()
        func add(_ name: String, _ type: String, _ shape: [Int], _ bytes: [UInt8]) {
            object[name] = [
                "dtype": type, "shape": shape, "data_offsets": [content.count, content.count + bytes.count],
            ]
            content.append(contentsOf: bytes)
        }
        let isFloat8 = number("fp8") == 1
        let (hidden, width) = (number("hidden"), number("intermediate"))
        let prefix = "model.layers.\(Self.layer).mlp."
        let experts = (0..<number("experts")).map { ("experts.\($0).", "", $0) }
        for (owner, source, index) in experts + (number("shared") == 1 ? [("shared_experts.", "shared_", 0)] : []) {
            for (matrix, name, inputs, outputs) in [
                ("w1", "gate_proj", hidden, width), ("w3", "up_proj", hidden, width),
                ("w2", "down_proj", width, hidden),
            ] {
                let bytes = try transposed(source + matrix, inputs, outputs, index)
                add("\(prefix)\(owner)\(name).weight", isFloat8 ? "F8_E4M3" : "BF16", [outputs, inputs], bytes)
                guard isFloat8 else { continue }
                let scales = try self.bytes(source + matrix + "_scale")
                add(
                    "\(prefix)\(owner)\(name).weight_scale", "F32", [outputs, 1],
                    Array(scales[index * outputs * 4..<(index + 1) * outputs * 4]))
            }
        }
        let json = try JSONSerialization.data(withJSONObject: object)
        return withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json + content
    }

    private func transposed(_ name: String, _ inputs: Int, _ outputs: Int, _ index: Int) throws -> [UInt8] {
        let size = number("fp8") == 1 ? 1 : 2
        let all = try bytes(name + (size == 1 ? "_e4m3" : "_bf16"))
        let base = index * inputs * outputs * size
        var result = [UInt8](repeating: 0, count: inputs * outputs * size)
        for input in 0..<inputs {
            for output in 0..<outputs {
                for byte in 0..<size {
                    result[(output * inputs + input) * size + byte] =
                        all[base + (input * outputs + output) * size + byte]
                }
            }
        }
        return result
    }
}
