import FusedMoE
import Numerics
import Testing

struct KernelNumericsTests {
    @Test(arguments: KernelGolden.names)
    func plainExecutionMatchesThePublishedKernel(name: String) throws {
        let golden = try KernelGolden(name)
        let call = golden.call
        let ours = try PlainExecution.run(
            kernel: .v2, problem: call.problem, tile: call.tile, options: call.options, tensors: call.tensors,
            routing: call.routing)
        let agreement = Agreement(ours, golden.output, hidden: call.problem.shape.hidden)
        #expect(agreement.equal >= 0.998, "\(agreement)")
        #expect(agreement.steps <= 1, "\(agreement)")
    }

    @Test(arguments: KernelVersion.allCases, Array(UInt64(0)..<50))
    func plainExecutionAgreesWithTheDenseLayer(kernel: KernelVersion, seed: UInt64) throws {
        let call = try RandomCall.make(seed: seed, kernel: kernel)
        let ours = try PlainExecution.run(
            kernel: kernel, problem: call.problem, tile: call.tile, options: call.options, tensors: call.tensors,
            routing: call.routing)
        let error = try relativeRMS(ours, call.dense())
        #expect(error <= call.tolerance, "seed \(seed): \(error) \(call.problem) \(call.tile)")
    }

    /// What the published kernel gives up by writing the scale over four channels, and the carrier beside the row keeps.
    @Test func losslessCarrierKeepsTheFourChannels() throws {
        let golden = try KernelGolden("actquant-shared")
        let call = golden.call
        let dense = try DenseReference.run(
            problem: call.problem, options: call.options, tensors: call.tensors, routing: call.routing)
        var problem = call.problem
        let faithful = try relativeRMS(run(call, problem), dense)
        problem.quantization.tokens = .float8(.lossless)
        let lossless = try relativeRMS(run(call, problem), dense)
        #expect(lossless < 0.06 && faithful > 1.5 * lossless, "\(faithful) \(lossless)")
    }

    private func run(_ call: TestCall, _ problem: MoEProblem) throws -> [Float] {
        try PlainExecution.run(
            kernel: .v2, problem: problem, tile: call.tile, options: call.options, tensors: call.tensors,
            routing: call.routing)
    }

    @Test func refusesTensorsOfAnotherShape() throws {
        let call = try KernelGolden("actquant-shared").call
        var problem = call.problem
        problem.shape.intermediate = 128
        #expect(refusal { _ = try run(call, problem) }?.hasPrefix("W1 of expert 0 is [256, 512]") == true)
        problem = call.problem
        problem.quantization.weights = .bfloat16
        problem.quantization.tokens = .bfloat16
        #expect(refusal { _ = try run(call, problem) }?.contains("the call needs bfloat16") == true)
    }
}
