import FusedMoE
import Numerics
import TPU
import TestSupport
import Testing

/// Random legal calls without tensors, up to the size of a slice.
enum RandomShape {
    static func make(seed: UInt64, kernel: KernelVersion) throws -> KernelCall {
        var random = SeededRandom(seed: seed &+ 0x5EED)
        // Most draws are legal; the first one that is decides.
        for _ in 0..<200 {
            if let call = try? draw(&random, kernel, seed) { return call }
        }
        Issue.record("seed \(seed): no legal call among 200")
        throw FusedMoEError(.tile, "no legal call")
    }

    private static func draw(_ random: inout SeededRandom, _ kernel: KernelVersion, _ seed: UInt64) throws -> KernelCall
    {
        let (slice, devices) = random.pick([("v7x-4", 1), ("v7x-4", 3), ("v7x-4", 8), ("v7x-8", 16), ("v7x-16", 32)])
        let experts = devices * random.pick([1, 2, 5, 8])
        let shape = MoEShape(
            hidden: random.pick([512, 1024, 2048]), intermediate: random.pick([128, 256, 384, 512]), experts: experts,
            topK: min(experts, random.pick([1, 2, 4, 8])), sharedIntermediate: random.pick([0, 128, 256]))
        let isQuantized = kernel == .v2 && random.pick([true, false])
        let quantization = Quantization(
            weights: isQuantized ? .float8E4M3 : random.pick([.float8E4M3, .bfloat16]),
            scaleBlock: random.pick([.perChannel, .inputs128]),
            tokens: isQuantized ? .float8(random.pick([.faithful, .lossless])) : .bfloat16)
        let problem = MoEProblem(
            shape: shape, tokens: random.pick([1, 3, 8, 40, 61, 128, 256, 333]), devices: devices,
            quantization: quantization)
        let metadata: MetadataExchange = devices == 3 ? .direct : random.pick([.butterfly, .direct])
        let options = KernelOptions(
            sharedExpert: shape.sharedIntermediate == 0 ? .none : .inKernel, metadata: metadata,
            usesActiveList: random.pick([true, false]) || kernel == .v1,
            prequantization: random.pick(kernel == .v1 ? [.perTile, .perTile] : [.perTile, .whole]),
            ablations: random.pick([[], [], [], Set([random.pick(Ablation.allCases)])]))
        let bts = random.pick([8, 16, 24, 40, 64])
        var sizes = [
            "bt=\(random.pick([8, 16, 32]))", "bf=\(random.pick([128, 256, 384, 512]))", "bts=\(bts)",
            "btc=\(random.pick([8, bts]))", "bse=128",
        ]
        if kernel == .v1 { sizes += ["bd1=\(random.pick([256, 512]))", "bd2=\(random.pick([256, 512]))"] }
        return try KernelCall(
            kernel: kernel, problem: problem, overrides: TileOverrides(parsing: sizes.joined(separator: ",")),
            options: options, topology: SliceTopology(named: slice, wraps: random.pick([nil, true])),
            routing: random.pick([.uniform, .zipf(exponent: 2), .hotspot(ratio: 50)]), seed: seed)
    }
}
