import Checkpoint
import FusedMoE
import StatePools

/// The dimensions of a hybrid model that decide what a step costs and what memory it takes (docs/model.md#configuration).
public struct ModelShape: Sendable, Equatable {
    /// Name in reports.
    public var name: String
    /// Width of the residual stream.
    public var hidden: Int
    /// Layers of both kinds.
    public var layers: Int
    /// Layers with MLA; the others are linear (GLA).
    public var latentLayers: Int
    /// First layers, whose MLP is dense.
    public var denseLayers: Int
    /// Width of the dense MLP.
    public var denseIntermediate: Int
    /// Heads of both kinds of attention.
    public var heads: Int
    /// Width of a linear head (D).
    public var headWidth: Int
    /// Groups of heads that the linear layers' output norm takes its means over.
    public var normGroups: Int
    /// Rank of the query projection of MLA; 0 for a direct one.
    public var queryRank: Int
    /// Width of the latent (R).
    public var latentWidth: Int
    /// Width of a head's key without position (dn).
    public var nopeWidth: Int
    /// Width of the rotary key (dr).
    public var ropeWidth: Int
    /// Width of a head's value (dv).
    public var valueWidth: Int
    /// Rows of embedding and output head.
    public var vocabulary: Int
    /// One mixture-of-experts layer.
    public var experts: MoEShape

    /// Ling-2.6-1T: 80 layers of which every eighth is MLA, 256 experts of width 2048.
    public static let ling1T = ModelShape(
        name: "ling-2.6-1t", hidden: 8192, layers: 80, latentLayers: 10, denseLayers: 4, denseIntermediate: 18432,
        heads: 64, headWidth: 128, normGroups: 8, queryRank: 1536, latentWidth: 512, nopeWidth: 128, ropeWidth: 64,
        valueWidth: 128,
        vocabulary: 157_184, experts: .ling1T)

    /// Ling-2.6-flash.
    public static let lingFlash = ModelShape(
        name: "ling-2.6-flash", hidden: 4096, layers: 32, latentLayers: 4, denseLayers: 1, denseIntermediate: 9216,
        heads: 32, headWidth: 128, normGroups: 4, queryRank: 1536, latentWidth: 512, nopeWidth: 128, ropeWidth: 64,
        valueWidth: 128,
        vocabulary: 157_184, experts: .lingFlash)

    /// The published shapes by the names the command line takes.
    public static let named: [String: ModelShape] = ["ling-2.6-1t": .ling1T, "ling-2.6-flash": .lingFlash]

    /// Layers with linear attention.
    public var linearLayers: Int { layers - latentLayers }
    /// Layers with experts.
    public var expertLayers: Int { layers - denseLayers }

    /// What a request's state is made of, for the pools.
    public var state: StateShape {
        StateShape(
            latentLayers: latentLayers, latentWidth: latentWidth, ropeWidth: ropeWidth, linearLayers: linearLayers,
            headCount: heads, headWidth: headWidth)
    }
}

extension ModelShape {
    /// The shape that a checkpoint's configuration describes.
    public init(name: String, _ configuration: ModelConfiguration) {
        let c = configuration
        let (group, whole) = (c.layerGroupSize, c.layerCount / c.layerGroupSize * c.layerGroupSize)
        self.init(
            name: name, hidden: c.hiddenSize, layers: c.layerCount,
            latentLayers: (0..<c.layerCount).count { ($0 + 1) % group == 0 || $0 >= whole },
            denseLayers: min(c.denseLayerCount, c.layerCount), denseIntermediate: c.intermediateSize,
            heads: c.headCount, headWidth: c.headWidth, normGroups: c.normGroupCount, queryRank: c.queryRank ?? 0,
            latentWidth: c.latentWidth,
            nopeWidth: c.nopeWidth, ropeWidth: c.ropeWidth, valueWidth: c.valueWidth, vocabulary: c.vocabularySize,
            experts: MoEShape(
                hidden: c.hiddenSize, intermediate: c.expertIntermediateSize, experts: c.expertCount,
                topK: c.expertsPerToken, sharedIntermediate: c.sharedIntermediateSize))
    }

    /// The shape itself when it can be deployed.
    ///
    /// - Throws: `DeploymentError` with code `.shape` that names the first field out of range.
    public func validated() throws(DeploymentError) -> ModelShape {
        let fields = [
            ("hidden", hidden, 1...65_536), ("layers", layers, 1...4096), ("latent layers", latentLayers, 0...layers),
            ("dense layers", denseLayers, 0...layers), ("dense intermediate", denseIntermediate, 1...(1 << 20)),
            ("heads", heads, 1...4096), ("head width", headWidth, 1...4096),
            ("norm groups", normGroups, 1...4096), ("query rank", queryRank, 0...65_536),
            ("latent width", latentWidth, 1...65_536), ("nope width", nopeWidth, 1...4096),
            ("rope width", ropeWidth, 1...4096), ("value width", valueWidth, 1...4096),
            ("vocabulary", vocabulary, 1...(1 << 24)),
        ]
        for (name, value, range) in fields where !range.contains(value) {
            throw DeploymentError(
                .shape, "\(name) is \(value), it must be from \(range.lowerBound) to \(range.upperBound)")
        }
        return self
    }
}
