import DeploymentModel
import FusedMoE
import StatePools
import Testing

struct MemoryPlanTests {
    private static let experts = 76
    /// fp8 with an fp32 scale per output channel: W1 and W3 of 2048 × 8192, W2 of 8192 × 2048.
    private static let expertBytes = 3 * 8192 * 2048 + 4 * (2 * 2048 + 8192)

    private func part(_ name: String, _ plan: MemoryPlan, device: Int = 0) -> Int? {
        plan.devices[device].parts.first { $0.name == name }?.bytes
    }

    /// The published sums: 12.5 KiB per token, 70 MiB per request.
    @Test func stateBytesAreThePublishedOnes() throws {
        let memory = try Deployment().memory
        #expect(memory.calculator.bytesPerToken == 12_800)
        #expect(memory.calculator.bytesPerRequest == 70 << 20)
        #expect(memory.calculator.bytesPerToken * 16_384 == 200 << 20)
    }

    @Test func weightsAreTheSumOfTheLayers() throws {
        let memory = try Deployment().memory
        #expect(part("routed experts", memory) == Self.experts * 8 * Self.expertBytes)
        #expect(part("shared experts", memory) == Self.experts * Self.expertBytes)
        #expect(part("routers", memory) == Self.experts * 4 * 256 * 8193)
        #expect(part("embedding and head", memory) == 2 * 2 * 157_184 / 4 * 8192)
        // Landing zones of rows and results, returned results, quantised rows and output (docs/kernels.md#buffers).
        let zones = 4 * 8 * 4160 * (8192 + 16_384) + 4 * 256 * 128 * 16_384 + 512 * (8192 + 16_384)
        #expect(part("kernel workspace", memory) == zones)
        let device = memory.devices[0]
        #expect(device.total <= device.limit)
        #expect(device.limit - device.total < 2 * memory.calculator.bytesPerRequest)
    }

    /// The published engine logged 1,786,880 tokens.
    @Test func poolsHoldAboutWhatThePublishedEngineLogged() throws {
        let memory = try Deployment().memory
        #expect(abs(Double(memory.tokensPerRank) / 1_786_880 - 1) < 0.02)
    }

    @Test func expertsThatDoNotFitAreRefusedWithTheSum() throws {
        let layout = DeploymentLayout(
            slice: "v7x-8", dataParallel: 2, tensorParallel: 4, experts: .apart(devices: 8, microBatches: 1))
        let error = #expect(throws: DeploymentError.self) { try Deployment(layout: layout) }
        #expect(error?.code == .memory)
        let sentence = error?.description ?? ""
        for piece in ["routed experts 114.1 GiB", "+ shared experts 3.6 GiB", "of 86.4 GiB usable HBM", "too much"] {
            #expect(sentence.contains(piece), "\(sentence)")
        }
    }

    @Test func aLoadBeyondThePoolsIsRefusedWithTheSum() throws {
        let memory = try Deployment().memory
        try memory.require(requestsPerRank: 64, tokensPerRequest: 17_408)
        let error = #expect(throws: DeploymentError.self) {
            try memory.require(requestsPerRank: 64, tokensPerRequest: 262_144)
        }
        let sentence = error?.description ?? ""
        #expect(sentence.contains("64 × 70 MiB") && sentence.contains("16777216 tokens × 12.5 KiB"), "\(sentence)")
        #expect(throws: DeploymentError.self) {
            try memory.require(requestsPerRank: .max, tokensPerRequest: .max)
        }
    }

    @Test(arguments: [
        DeploymentLayout(slice: "v7x-5", dataParallel: 8, tensorParallel: 4),
        DeploymentLayout(slice: "v7x-16", dataParallel: 4, tensorParallel: 4),
        DeploymentLayout(slice: "v7x-16", dataParallel: 0, tensorParallel: 4),
        DeploymentLayout(slice: "v7x-16", dataParallel: .max, tensorParallel: .max),
        DeploymentLayout(
            slice: "v7x-16", dataParallel: 5, tensorParallel: 4, experts: .apart(devices: 12, microBatches: 1)),
        DeploymentLayout(
            slice: "v7x-16", dataParallel: 4, tensorParallel: 4, experts: .apart(devices: 16, microBatches: 0)),
    ])
    func layoutsThatCannotBeAreRefused(layout: DeploymentLayout) {
        let error = #expect(throws: DeploymentError.self) { try Deployment(layout: layout) }
        #expect(error?.code == .layout)
        #expect((error?.description.count ?? 0) > 25)
    }
}
