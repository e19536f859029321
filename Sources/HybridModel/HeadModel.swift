import Checkpoint
import Numerics

/// The sampler service's part of the model: the final norm and the output head.
public final class HeadModel: Sendable {
    /// What `config.json` says.
    public let configuration: ModelConfiguration
    /// Rows one call may have.
    public let maximumRows: Int
    /// Bytes of the mapped tensors.
    public let weightByteCount: Int

    /// Bytes of everything a call writes.
    public var scratchByteCount: Int { normed.byteCount }

    private let team: ThreadTeam
    // Kept for the memory that `norm` and `head` lie in, which is only read.
    private nonisolated(unsafe) let tensors: TensorSet
    private nonisolated(unsafe) let norm: UnsafePointer<Float>
    private let head: WeightMatrix
    private let normed: FloatBuffer

    /// Maps and checks the two tensors.
    ///
    /// - Throws: `CheckpointError` that names the tensor.
    public init(checkpoint: Checkpoint, team: ThreadTeam, maximumRows: Int) throws(CheckpointError) {
        configuration = checkpoint.configuration
        self.team = team
        self.maximumRows = maximumRows
        tensors = try TensorSet(checkpoint, owns: Self.owns)
        weightByteCount = tensors.byteCount
        norm = try tensors.vector("model.norm.weight", count: configuration.hiddenSize)
        head = try tensors.matrix(
            "lm_head.weight", rows: configuration.vocabularySize, columns: configuration.hiddenSize)
        normed = FloatBuffer(maximumRows * configuration.hiddenSize)
    }

    static func owns(_ name: String) -> Bool { name == "lm_head.weight" || name == "model.norm.weight" }

    /// Hidden rows [rowCount, h] after the final norm; valid until the next call.
    public func normalize(_ rows: UnsafePointer<Float>, rowCount: Int) -> UnsafePointer<Float> {
        let h = configuration.hiddenSize
        for row in 0..<rowCount {
            Kernels.rmsNorm(
                rows + row * h, weight: norm, epsilon: configuration.normEpsilon, h, into: normed.pointer + row * h)
        }
        return UnsafePointer(normed.pointer)
    }

    /// Logits [rowCount, V] in fp32 of hidden rows [rowCount, h].
    public func logits(_ rows: UnsafePointer<Float>, rowCount: Int, into out: UnsafeMutablePointer<Float>) {
        Kernels.multiply(
            normalize(rows, rowCount: rowCount), rowCount: rowCount, rowStride: configuration.hiddenSize, by: head,
            into: out, outputStride: configuration.vocabularySize, team: team)
    }
}
