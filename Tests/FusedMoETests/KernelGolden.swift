import Checkpoint
import Foundation
import FusedMoE
import Numerics
import Testing

/// A matrix or vector owned by a test.
final class TestMatrix {
    let bytes: UnsafeMutableRawPointer
    let scales: UnsafeMutablePointer<Float>?
    let view: WeightMatrix

    /// [rows, columns] of a stored type from its bytes, with optional scales.
    init(rows: Int, columns: Int, type: ElementType, bytes source: [UInt8], scales values: [Float]? = nil) {
        bytes = .allocate(byteCount: max(1, source.count), alignment: 64)
        bytes.copyMemory(from: source, byteCount: source.count)
        scales = values.map { values in
            let pointer = UnsafeMutablePointer<Float>.allocate(capacity: values.count)
            pointer.initialize(from: values, count: values.count)
            return pointer
        }
        view = WeightMatrix(
            rows: rows, columns: columns, elementType: type, elements: bytes, scales: scales.map { UnsafePointer($0) })
    }

    deinit {
        bytes.deallocate()
        scales?.deallocate()
    }
}

/// A call with real numbers that owns them.
final class TestCall {
    let problem: MoEProblem
    let tile: TileConfiguration
    let options: KernelOptions
    let routing: RoutingTable
    let tensors: MoETensors
    private let matrices: [TestMatrix]
    private let tokens: UnsafeMutablePointer<Float>

    init(
        problem: MoEProblem, tile: TileConfiguration, options: KernelOptions, routing: RoutingTable, tokens: [Float],
        experts: [[TestMatrix]], shared: [TestMatrix]?
    ) {
        (self.problem, self.tile, self.options, self.routing) = (problem, tile, options, routing)
        self.tokens = .allocate(capacity: tokens.count)
        self.tokens.initialize(from: tokens, count: tokens.count)
        matrices = experts.flatMap { $0 } + (shared ?? [])
        func expert(_ m: [TestMatrix]) -> ExpertMatrices {
            ExpertMatrices(gate: m[0].view, up: m[1].view, down: m[2].view)
        }
        tensors = MoETensors(tokens: self.tokens, experts: experts.map(expert), shared: shared.map(expert))
    }

    deinit { tokens.deallocate() }
}

/// Inputs and outputs of the published V2 kernel in interpret mode.
struct KernelGolden {
    static let names = ["actquant-rolling", "actquant-shared", "bf16-shared", "w8a16-shared"]

    let call: TestCall
    /// [T, H] as fp32.
    let output: [Float]

    private let data: Data
    private let header: SafetensorsHeader
    private let numbers: [String: Int]

    init(_ name: String) throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/golden/fused-moe-v2/\(name).safetensors")
        data = try Data(contentsOf: file)
        let length = try SafetensorsHeader.jsonByteCount(
            prefix: Array(data.prefix(8)), fileByteCount: data.count, file: name)
        let json = Data(data[8..<8 + length])
        header = try SafetensorsHeader(json: json, fileByteCount: data.count, file: name)
        let object = try #require(try JSONSerialization.jsonObject(with: json) as? [String: Any])
        let metadata = try #require(object["__metadata__"] as? [String: String])
        numbers = metadata.compactMapValues { Int($0) }
        (call, output) = try Reader(data: data, header: header, numbers: numbers).read()
    }

    /// Reads and transposes: the kernel's matrices are [in, out], ours [out, in].
    private struct Reader {
        let data: Data
        let header: SafetensorsHeader
        let numbers: [String: Int]

        func number(_ name: String) throws -> Int { try #require(numbers[name], "metadata \(name)") }

        func bytes(_ name: String) throws -> [UInt8] {
            let entry = try #require(header.tensors[name], "tensor \(name)")
            return Array(data[entry.offset..<entry.offset + entry.byteCount])
        }

        func floats(_ name: String) throws -> [Float] {
            try bytes(name).withUnsafeBytes { raw in
                (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
            }
        }

        func bfloats(_ name: String) throws -> [Float] {
            try bytes(name).withUnsafeBytes { raw in
                (0..<raw.count / 2).map {
                    BFloat16(bitPattern: raw.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)).float
                }
            }
        }

        func matrix(_ name: String, inputs: Int, outputs: Int, index: Int) throws -> TestMatrix {
            let isFloat8 = try number("fp8") == 1
            let size = isFloat8 ? 1 : 2
            let all = try bytes(name + (isFloat8 ? "_e4m3" : "_bf16"))
            let base = index * inputs * outputs * size
            var transposed = [UInt8](repeating: 0, count: inputs * outputs * size)
            for input in 0..<inputs {
                for output in 0..<outputs {
                    for byte in 0..<size {
                        transposed[(output * inputs + input) * size + byte] =
                            all[base + (input * outputs + output) * size + byte]
                    }
                }
            }
            let scales = isFloat8 ? Array(try floats(name + "_scale")[index * outputs..<(index + 1) * outputs]) : nil
            return TestMatrix(
                rows: outputs, columns: inputs, type: isFloat8 ? .float8E4M3 : .bfloat16, bytes: transposed,
                scales: scales)
        }

        func expert(_ prefix: String, _ index: Int) throws -> [TestMatrix] {
            let (h, i) = (try number("hidden"), try number("intermediate"))
            return [
                try matrix(prefix + "w1", inputs: h, outputs: i, index: index),
                try matrix(prefix + "w3", inputs: h, outputs: i, index: index),
                try matrix(prefix + "w2", inputs: i, outputs: h, index: index),
            ]
        }

        func read() throws -> (TestCall, [Float]) {
            let isShared = try number("shared") == 1
            let shape = MoEShape(
                hidden: try number("hidden"), intermediate: try number("intermediate"),
                experts: try number("experts"), topK: try number("top_k"))
            let isQuantized = try number("activation_quant") == 1
            let quantization = Quantization(
                weights: try number("fp8") == 1 ? .float8E4M3 : .bfloat16,
                tokens: isQuantized ? .float8(.faithful) : .bfloat16)
            let problem = MoEProblem(
                shape: shape, tokens: try number("tokens"), devices: try number("devices"),
                quantization: quantization)
            let options = KernelOptions(sharedExpert: isShared ? .inKernel : .none)
            let tile = try TileConfiguration(
                bt: number("bt"), bf: number("bf"), bts: number("bts"), btc: number("btc"), bse: number("bse")
            ).effective(for: problem, kernel: .v2, options: options)
            let ids = try bytes("topk_ids").withUnsafeBytes { raw in
                (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self) }
            }
            let routing = try RoutingTable(
                tokens: problem.tokens, topK: shape.topK, experts: shape.experts, expertIDs: ids,
                weights: floats("topk_weights"))
            let call = TestCall(
                problem: problem, tile: tile, options: options, routing: routing, tokens: try bfloats("tokens_bf16"),
                experts: try (0..<shape.experts).map { try expert("", $0) },
                shared: isShared ? try expert("shared_", 0) : nil)
            return (call, try bfloats("output_bf16"))
        }
    }
}

/// How close outputs are to a golden's.
struct Agreement {
    /// Share of equal values.
    let equal: Double
    /// Largest difference in bf16 steps of its row's largest magnitude.
    let steps: Float

    init(_ ours: [Float], _ golden: [Float], hidden: Int) {
        var (equalCount, worst) = (0, ours.count == golden.count ? Float(0) : .infinity)
        for first in stride(from: 0, to: min(ours.count, golden.count), by: hidden) {
            let row = golden[first..<first + hidden]
            let step = (row.reduce(0) { max($0, $1.magnitude) }).binade * 0x1p-7
            for i in row.indices {
                if ours[i] == golden[i] {
                    equalCount += 1
                } else {
                    worst = max(worst, (ours[i] - golden[i]).magnitude / step)
                }
                if ours[i].isNaN { worst = .infinity }
            }
        }
        equal = Double(equalCount) / Double(golden.count)
        steps = worst
    }
}
