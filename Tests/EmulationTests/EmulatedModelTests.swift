import Checkpoint
import DeploymentModel
import Emulation
import EventLoop
import EventLoopTesting
import Foundation
import Testing

@Suite struct EmulatedModelTests {
    @Test func publishedNamesHaveTheShapesOfTheDeploymentModel() throws {
        for (name, shape) in ModelShape.named {
            let model = try EmulatedModel(name)
            #expect(model.shape == shape && model.name == name && model.servedName == "\(name)-emulated")
            #expect(model.configuration.vocabularySize == 157_184 && model.configuration.maximumPositions == 131_072)
        }
        #expect(try EmulatedModel("ling-2.6-1t").fingerprint != EmulatedModel("ling-2.6-flash").fingerprint)
        #expect(try EmulatedModel("ling-2.6-1t").configuration.fullAttentionLayers.count == 10)
    }

    @Test func aFoldersShapeNeedsNoWeights() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("shape-\(UUID())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(throws: (any Error).self) { try EmulatedModel(folder.path) }
        let golden = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/golden/base/config.json")
        try FileManager.default.copyItem(at: golden, to: folder.appendingPathComponent("config.json"))
        let model = try EmulatedModel(folder.path)
        #expect(
            model.name == folder.lastPathComponent && model.shape.experts.hidden == 512, "whole lanes of the kernel")
    }

    @Test func dummyTextFollowsFromSeedAndPositionAndIsReadable() {
        let text = { (seed: UInt64) in
            String(decoding: (0..<400).map { UInt8(DummyText.token(seed: seed, position: $0)) }, as: UTF8.self)
        }
        #expect(text(1) == text(1) && text(1) != text(2))
        #expect(text(3).contains("This is dummy text") && text(UInt64.max).contains("emulated"))
        #expect(DummyText.token(seed: .max, position: .max) < 128)
    }

    @Test func aSleepEndsWhenItShould() async {
        let network = MemoryNetwork(seed: 1)
        let loop = network.makeLoop("sleeper")
        let end = try? network.run(on: loop) { () -> UInt64 in
            await PreciseSleep.sleep(until: 12_345, on: loop)
            await PreciseSleep.sleep(until: 100, on: loop)
            return loop.now
        }
        #expect(end == 12_345)
    }
}
