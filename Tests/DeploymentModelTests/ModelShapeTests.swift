import Checkpoint
import DeploymentModel
import Foundation
import FusedMoE
import StatePools
import Testing

struct ModelShapeTests {
    /// Total parameters are the published 1012.2 B and 104.19 B (docs/model.md).
    @Test(arguments: [(ModelShape.ling1T, 1012.2), (.lingFlash, 104.19)])
    func parametersAreThePublishedOnes(shape: ModelShape, billions: Double) {
        let (h, width) = (shape.hidden, shape.heads * shape.headWidth)
        let linear = 5 * h * width
        let query = shape.queryRank * (h + shape.heads * (shape.nopeWidth + shape.ropeWidth))
        let latent =
            query + h * (shape.latentWidth + shape.ropeWidth)
            + shape.heads * (shape.nopeWidth + shape.valueWidth) * shape.latentWidth
            + shape.heads * shape.valueWidth * h
        let experts = (shape.experts.experts + 1) * shape.experts.expertParameters + shape.experts.experts * h
        let total =
            shape.linearLayers * linear + shape.latentLayers * latent + shape.denseLayers * 3 * h
            * shape.denseIntermediate
            + shape.expertLayers * experts + 2 * shape.vocabulary * h
        #expect(abs(Double(total) * 1e-9 - billions) < billions * 5e-4)
        #expect(ModelShape.ling1T.state == StateShape.ling1T)
    }

    /// A small checkpoint can stand on a small slice too; its widths are padded to lanes for the kernel.
    @Test func aCheckpointsConfigurationIsAShape() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/golden/base/config.json")
        let shape = ModelShape(
            name: "base", try ModelConfiguration(json: Data(contentsOf: file)))
        #expect((shape.layers, shape.latentLayers, shape.denseLayers) == (8, 2, 2))
        #expect((shape.hidden, shape.heads, shape.experts.experts) == (64, 4, 16))
        var deployment = try Deployment(
            shape: shape, layout: DeploymentLayout(slice: "v7x-4", dataParallel: 4, tensorParallel: 2))
        let cost = deployment.cost(of: StepWork(ranks: 4, each: [.decode(context: 10)]))
        #expect(cost[.experts] > 0 && cost[.linearDecode] > 0)
    }

    /// Ling-2.6-flash has 32 heads, which split over eight devices, in four norm groups, which do not.
    @Test func splittingTheHeadsOfOneNormGroupIsRefusedWithASentence() throws {
        let layout = DeploymentLayout(slice: "v7x-4", dataParallel: 1, tensorParallel: 8)
        let error = #expect(throws: DeploymentError.self) { try Deployment(shape: .lingFlash, layout: layout) }
        #expect(
            error?.description.contains(
                "4 norm groups do not split over tp 8: the heads of one group would be normalised apart; tp 1, 2, 4 keeps "
                    + "every group whole") == true, "\(error?.description ?? "")")
        _ = try Deployment(
            shape: .lingFlash, layout: DeploymentLayout(slice: "v7x-4", dataParallel: 2, tensorParallel: 4))
    }

    @Test func nonsenseIsRefusedByName() {
        var shape = ModelShape.ling1T
        shape.latentLayers = 81
        let error = #expect(throws: DeploymentError.self) { try shape.validated() }
        #expect(error?.code == .shape && error?.description.contains("latent layers is 81") == true)
    }
}
