import Numerics

/// The kernels' arithmetic without a device: the same tile functions in the same order, one expert after the other.
///
/// It says what numbers a device program must give, and is what goldens are first matched with.
public final class PlainExecution {
    private let problem: MoEProblem
    private let kernel: KernelVersion
    private let tile: TileConfiguration
    private let options: KernelOptions
    private let tensors: MoETensors
    private let routing: RoutingTable
    private let arithmetic: TileArithmetic
    private let rows: Int
    private let x, gate, up, y, part, scales: FloatScratch
    private let encoded: ByteScratch
    private let results: ByteScratch

    private init(
        _ kernel: KernelVersion, _ problem: MoEProblem, _ tile: TileConfiguration, _ options: KernelOptions,
        _ tensors: MoETensors, _ routing: RoutingTable, _ team: ThreadTeam?
    ) {
        (self.kernel, self.problem, self.tile, self.options) = (kernel, problem, tile, options)
        (self.tensors, self.routing) = (tensors, routing)
        let hidden = problem.shape.hidden
        rows = min(tile.bts, max(1, problem.tokens))
        arithmetic = TileArithmetic(
            problem: problem, kernel: kernel, tile: tile, rows: rows,
            computesShared: options.computesShared(problem.shape), team: team)
        x = FloatScratch(rows * hidden)
        gate = FloatScratch(rows * tile.bf)
        up = FloatScratch(rows * tile.bf)
        y = FloatScratch(rows * hidden)
        part = FloatScratch(rows * hidden)
        scales = FloatScratch(rows)
        encoded = ByteScratch(problem.tokens * problem.quantization.tokens.rowBytes(hidden: hidden))
        results = ByteScratch(
            problem.tokens * problem.shape.topK * problem.quantization.tokens.resultRowBytes(hidden: hidden))
    }

    /// The layer's output [T, H].
    ///
    /// - tile: an effective tile.
    /// - Throws: `FusedMoEError` when the call is not valid or the tensors do not fit it.
    public static func run(
        kernel: KernelVersion, problem: MoEProblem, tile: TileConfiguration, options: KernelOptions,
        tensors: MoETensors, routing: RoutingTable, team: ThreadTeam? = nil
    ) throws(FusedMoEError) -> [Float] {
        _ = try options.validated(for: problem.validated(), kernel: kernel)
        try tensors.check(problem, options: options)
        try routing.check(problem)
        let run = PlainExecution(kernel, problem, tile, options, tensors, routing, team)
        run.encodeTokens()
        for expert in 0..<problem.shape.experts { run.runExpert(expert) }
        return run.combine()
    }

    private var tokenBytes: Int { problem.quantization.tokens.rowBytes(hidden: problem.shape.hidden) }
    private var resultBytes: Int { problem.quantization.tokens.resultRowBytes(hidden: problem.shape.hidden) }

    private func encodeTokens() {
        for token in 0..<problem.tokens {
            arithmetic.codec.encode(
                tensors.tokens + token * problem.shape.hidden, into: encoded.pointer + token * tokenBytes)
        }
    }

    private func load(_ tokens: some Collection<Int>) {
        for (row, token) in tokens.enumerated() {
            scales.pointer[row] = arithmetic.codec.decode(
                encoded.pointer + token * tokenBytes, into: x.pointer + row * problem.shape.hidden)
        }
    }

    private func runExpert(_ expert: Int) {
        let slots = routing.expertIDs.indices.filter { routing.expertIDs[$0] == Int32(expert) }
        var first = 0
        while first < slots.count {
            let chunk = slots[first..<min(slots.count, first + rows)]
            load(chunk.map { $0 / routing.topK })
            switch kernel {
            case .v1: runV1(tensors.experts[expert], chunk.count)
            case .v2: runV2(tensors.experts[expert], chunk.count)
            }
            for (row, slot) in chunk.enumerated() {
                arithmetic.codec.encodeResult(
                    y.pointer + row * problem.shape.hidden, into: results.pointer + slot * resultBytes)
            }
            first += chunk.count
        }
    }

    /// V2: per tile of the intermediate width, all planes of the first products, then the second.
    private func runV2(_ expert: ExpertMatrices, _ count: Int) {
        for tileStart in stride(from: 0, to: problem.shape.intermediate, by: tile.bf) {
            let columns = tileStart..<tileStart + tile.bf
            firstProducts(expert, columns, 0..<problem.shape.hidden, count, adds: false)
            arithmetic.activate(
                gate: gate.pointer, up: up.pointer, rows: count, width: tile.bf, stride: tile.bf)
            arithmetic.secondProduct(
                gate.pointer - tileStart, rows: count, stride: tile.bf, down: expert.down, columns: columns,
                adds: tileStart > 0, into: y.pointer)
        }
    }

    /// V1: hidden slices of two planes each; the partial sum of every tile of the intermediate width goes through
    /// memory in bf16.
    private func runV1(_ expert: ExpertMatrices, _ count: Int) {
        let hidden = problem.shape.hidden
        for tileStart in stride(from: 0, to: problem.shape.intermediate, by: tile.bf) {
            let columns = tileStart..<tileStart + tile.bf
            for slice in stride(from: 0, to: hidden / 2, by: tile.bd1 / 2) {
                for plane in [0, hidden / 2] {
                    firstProducts(
                        expert, columns, plane + slice..<plane + slice + tile.bd1 / 2, count,
                        adds: slice + plane > 0)
                }
            }
            arithmetic.activate(
                gate: gate.pointer, up: up.pointer, rows: count, width: tile.bf, stride: tile.bf)
            arithmetic.secondProduct(
                gate.pointer - tileStart, rows: count, stride: tile.bf, down: expert.down, columns: columns,
                adds: false, into: part.pointer)
            addPartial(count * hidden, isFirst: tileStart == 0)
        }
    }

    private func addPartial(_ count: Int, isFirst: Bool) {
        for i in 0..<count {
            let sum = isFirst ? part.pointer[i] : part.pointer[i] + y.pointer[i]
            y.pointer[i] = arithmetic.codec.format == .float32 ? sum : BFloat16(sum).float
        }
    }

    private func firstProducts(
        _ expert: ExpertMatrices, _ outputs: Range<Int>, _ columns: Range<Int>, _ count: Int, adds: Bool
    ) {
        let groups = problem.quantization.scaleBlock.groups(inputs: problem.shape.hidden)
        arithmetic.firstProducts(
            x.pointer, rowScales: scales.pointer, rows: count, gate: expert.gate.rows(outputs, groups),
            up: expert.up.rows(outputs, groups), columns: columns, adds: adds, gate: gate.pointer, up: up.pointer,
            stride: tile.bf)
    }

    private func combine() -> [Float] {
        let hidden = problem.shape.hidden
        var output = [Float](repeating: 0, count: problem.tokens * hidden)
        output.withUnsafeMutableBufferPointer { output in
            guard let base = output.baseAddress else { return }
            for first in stride(from: 0, to: problem.tokens, by: rows) {
                let tokens = first..<min(problem.tokens, first + rows)
                let isShared = runShared(tokens)
                for token in tokens { combine(token, isShared ? y.pointer + (token - first) * hidden : nil, base) }
            }
        }
        return output
    }

    /// The shared expert of some tokens, into `y`.
    private func runShared(_ tokens: Range<Int>) -> Bool {
        guard options.computesShared(problem.shape), let shared = tensors.shared else { return false }
        load(tokens)
        for start in stride(from: 0, to: problem.shape.sharedIntermediate, by: tile.bse) {
            arithmetic.sharedBlock(
                x.pointer, rowScales: scales.pointer, rows: tokens.count, matrices: shared,
                columns: start..<start + tile.bse, isFirst: start == 0, into: y.pointer)
        }
        return true
    }

    private func combine(_ token: Int, _ shared: UnsafePointer<Float>?, _ output: UnsafeMutablePointer<Float>) {
        let slots = token * routing.topK..<(token + 1) * routing.topK
        let rows = slots.map { slot in
            routing.expertIDs[slot] < 0 ? nil : UnsafeRawPointer(results.pointer + slot * resultBytes)
        }
        rows.withUnsafeBufferPointer { rows in
            routing.weights.withUnsafeBufferPointer { weights in
                guard let weights = weights.baseAddress else { return }
                arithmetic.combine(
                    results: rows, weights: weights + slots.lowerBound, shared: shared, scratch: part.pointer,
                    into: output + token * problem.shape.hidden)
            }
        }
    }
}
