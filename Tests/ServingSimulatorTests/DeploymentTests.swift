import DeploymentModel
import Scheduling
import ServingSimulator
import Testing

@Suite struct DeploymentTests {
    private func serving(_ change: (inout ServingDeployment.Choice) -> Void = { _ in }) throws -> ServingDeployment {
        var choice = ServingDeployment.Choice()
        change(&choice)
        return try ServingDeployment(shape: .ling1T, choice)
    }

    private func refusal(_ change: (inout ServingDeployment.Choice) -> Void) -> String {
        do {
            _ = try serving(change)
            return "it was taken"
        } catch { return "\(error)" }
    }

    @Test func thePublishedSliceHasEightRanksWithTheMemoryPlansPools() throws {
        let serving = try serving()
        let group = serving.group(firstRank: 8)
        #expect(serving.deployment.layout == .published && group.rankCount == 8 && group.firstRank == 8)
        #expect(serving.slots == serving.deployment.memory.requestsPerRank)
        #expect(serving.pages * 64 == serving.deployment.memory.tokensPerRank)
        #expect(group.limits.stepPolicy == .prefillFirst && group.limits.prefillChunk == 2048)
        #expect(serving.link.bytesPerRequest == 280 << 20, "fp32 states of 70 layers")
        #expect(try self.serving { $0.layout = "disaggregated" }.deployment.layout == .disaggregated)
        #expect(try self.serving { $0.slice = "v7x-8" }.deployment.layout == .half)
    }

    @Test func whatDoesNotFitTheMemoryIsRefusedWithTheSum() {
        #expect(refusal { $0.slice = "v7x-4" }.contains(" = 131 GiB of 86.4 GiB usable HBM"))
        let slots = refusal { $0.slots = 1000 }
        #expect(
            slots.contains("1000 slots") && slots.contains("recurrent pool 68.4 GiB") && slots.contains("of 86.4 GiB"))
        #expect(refusal { $0.tokens = 1 << 26 }.contains("KV pool"))
        #expect(refusal { ($0.slots, $0.tokens) = (100, 100_000) } == "it was taken")
    }

    @Test func aLayoutThatCannotBeIsRefused() {
        #expect(refusal { $0.slice = "v7x-7" }.contains("v7x-7"))
        #expect(refusal { $0.tensorParallel = 5 }.contains("do not split into ranks of 5"))
        #expect(refusal { $0.layout = "sideways" }.contains("colocated or disaggregated"))
    }
}
