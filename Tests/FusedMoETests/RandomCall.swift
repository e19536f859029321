import FusedMoE
import Numerics
import TestSupport
import Testing

/// Random legal calls that cover the corners: empty experts, one token, one device, all tokens to one expert, rows that
/// do not fill a tile, block scales, every pair of element types. In every tenth call one expert gets everything.
enum RandomCall {
    static func make(seed: UInt64, kernel: KernelVersion) throws -> TestCall {
        var random = SeededRandom(seed: seed)
        let devices = random.pick([1, 2, 4, 8])
        let isOneExpert = seed % 10 == 9
        let experts = devices * random.pick(isOneExpert ? [2, 2, 3] : [1, 2, 3])
        let topK = isOneExpert ? 1 : min(experts, random.pick([1, 2, 3, 4]))
        let intermediate = random.pick([128, 256])
        let isShared = random.pick([true, false])
        let shape = MoEShape(
            hidden: random.pick([512, 512, 1024]), intermediate: intermediate, experts: experts, topK: topK,
            sharedIntermediate: random.pick([128, 256]))
        let quantization = quantization(kernel, &random)
        let tokens = isOneExpert ? 33 : random.pick([1, 2, 7, 24, 33, 64])
        let problem = try MoEProblem(
            shape: shape, tokens: tokens, devices: devices, quantization: quantization
        ).validated()
        let options = try KernelOptions(
            sharedExpert: isShared ? .inKernel : .none, metadata: random.pick([.butterfly, .direct]),
            usesActiveList: random.pick([true, false]) || kernel == .v1,
            prequantization: random.pick(kernel == .v1 ? [.perTile, .perTile] : [.perTile, .whole])
        ).validated(for: problem, kernel: kernel)
        let tile = try tile(kernel, shape, &random).effective(for: problem, kernel: kernel, options: options)
        return TestCall(
            problem: problem, tile: tile, options: options,
            routing: try routing(problem, toLastExperts: isOneExpert, &random),
            tokens: (0..<tokens * shape.hidden).map { _ in BFloat16(random.value()).float },
            experts: (0..<experts).map { _ in expert(shape.hidden, shape.intermediate, quantization, &random) },
            shared: isShared ? expert(shape.hidden, shape.sharedIntermediate, quantization, &random) : nil)
    }

    private static func quantization(_ kernel: KernelVersion, _ random: inout SeededRandom) -> Quantization {
        let block: ScaleBlock = random.pick([.perChannel, .inputs128])
        let plain: [Quantization] = [
            .bfloat16, Quantization(scaleBlock: block, tokens: .bfloat16),
            Quantization(weights: .float32, tokens: .float32), Quantization(weights: .bfloat16, tokens: .float32),
        ]
        guard kernel == .v2 else { return random.pick(plain) }
        return random.pick(
            plain + [
                Quantization(scaleBlock: block, tokens: .float8(.faithful)),
                Quantization(scaleBlock: block, tokens: .float8(.lossless)),
            ])
    }

    private static func tile(
        _ kernel: KernelVersion, _ shape: MoEShape, _ random: inout SeededRandom
    ) -> TileConfiguration {
        let bts = random.pick([16, 24, 32])
        let slices = kernel == .v1 ? [256, 512] : [0]
        return TileConfiguration(
            bt: random.pick([8, 16]), bf: random.pick(shape.intermediate == 256 ? [128, 256] : [128]), bts: bts,
            btc: random.pick([8, bts]), bse: 128, bd1: random.pick(slices), bd2: random.pick(slices))
    }

    private static func routing(
        _ problem: MoEProblem, toLastExperts isForced: Bool, _ random: inout SeededRandom
    ) throws -> RoutingTable {
        let shape = problem.shape
        let pattern = random.pick([RoutingPattern.uniform, .zipf(exponent: 2), .hotspot(ratio: 8)])
        let generated = try RoutingTable.generated(pattern, for: problem, seed: random.next())
        var ids = generated.expertIDs
        if isForced || random.pick([0, 1, 2, 3]) == 0 {
            // all tokens to the last experts
            for token in 0..<problem.tokens {
                for k in 0..<shape.topK { ids[token * shape.topK + k] = Int32(shape.experts - 1 - k) }
            }
        }
        var weights = ids.map { _ in random.value() + 1.1 }
        // normalised and scaled as the models do (routed scaling factor)
        for first in stride(from: 0, to: weights.count, by: shape.topK) {
            let sum = weights[first..<first + shape.topK].reduce(0, +)
            for slot in first..<first + shape.topK { weights[slot] *= 2.5 / sum }
        }
        return try RoutingTable(
            tokens: problem.tokens, topK: shape.topK, experts: shape.experts, expertIDs: ids, weights: weights)
    }

    private static func expert(
        _ hidden: Int, _ width: Int, _ quantization: Quantization, _ random: inout SeededRandom
    ) -> [TestMatrix] {
        [(width, hidden), (width, hidden), (hidden, width)].map { rows, columns in
            matrix(rows, columns, quantization, &random)
        }
    }

    private static func matrix(
        _ rows: Int, _ columns: Int, _ quantization: Quantization, _ random: inout SeededRandom
    ) -> TestMatrix {
        let size = 2 / Float(columns).squareRoot()
        var bytes: [UInt8] = []
        bytes.reserveCapacity(rows * columns * quantization.weights.byteCount)
        for _ in 0..<rows * columns {
            let value = random.value()
            switch quantization.weights {
            case .float8E4M3: bytes.append(Float8E4M3(value * 300).bitPattern)
            case .bfloat16: withUnsafeBytes(of: BFloat16(value * size).bitPattern) { bytes += $0 }
            case .float32: withUnsafeBytes(of: value * size) { bytes += $0 }
            }
        }
        guard quantization.weights == .float8E4M3 else {
            return TestMatrix(rows: rows, columns: columns, type: quantization.weights, bytes: bytes)
        }
        let groups = quantization.scaleBlock.groups(inputs: columns)
        let scales = (0..<rows * groups).map { _ in size / 300 * (1.5 + random.value()) }
        return TestMatrix(rows: rows, columns: columns, type: .float8E4M3, bytes: bytes, scales: scales)
    }
}

extension TestCall {
    /// The dense fp32 layer; for rows that lose four channels to their scale, without these.
    func dense() throws -> [Float] {
        guard case .float8(.faithful) = problem.quantization.tokens else {
            return try DenseReference.run(problem: problem, options: options, tensors: tensors, routing: routing)
        }
        let hidden = problem.shape.hidden
        var rows = Array(UnsafeBufferPointer(start: tensors.tokens, count: problem.tokens * hidden))
        for token in 0..<problem.tokens {
            for plane in 1...4 { rows[token * hidden + plane * hidden / 4 - 1] = 0 }
        }
        return try rows.withUnsafeBufferPointer { rows in
            let tokens = try #require(rows.baseAddress)
            let kept = MoETensors(tokens: tokens, experts: tensors.experts, shared: tensors.shared)
            return try DenseReference.run(problem: problem, options: options, tensors: kept, routing: routing)
        }
    }

    /// The tolerance of docs/kernels.md#arithmetic for these element types, relative RMS.
    var tolerance: Double {
        switch problem.quantization.tokens {
        case .float32: 1e-5
        case .bfloat16: 4e-3
        case .float8: 6e-2
        }
    }
}

/// RMS of the difference over RMS of `reference`.
func relativeRMS(_ ours: [Float], _ reference: [Float]) -> Double {
    guard ours.count == reference.count else { return .infinity }
    var (difference, size) = (0.0, 0.0)
    for (a, b) in zip(ours, reference) {
        difference += Double(a - b) * Double(a - b)
        size += Double(b) * Double(b)
    }
    guard difference.isFinite else { return .infinity }
    return size == 0 ? (difference == 0 ? 0 : .infinity) : (difference / size).squareRoot()
}
