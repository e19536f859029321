import Checkpoint
import Glibc

/// The bytes behind what requests own: fp32 recurrent states [slot][linear layer][H, D, D] and latent pages
/// [page][MLA layer][64 tokens][R + dr]. Who owns which slot and page is decided elsewhere.
///
/// Memory is reserved at once and becomes resident as it is touched.
public final class StateMemory: Sendable {
    /// Tokens in one page.
    public static let pageTokens = 64

    /// Recurrent slots.
    public let slotCount: Int
    /// Latent pages.
    public let pageCount: Int
    /// Bytes of both pools.
    public let byteCount: Int

    /// Floats of one linear layer's state of one slot, H * D * D.
    public let stateFloats: Int
    /// Floats of one token's latent, R + dr.
    public let latentFloats: Int
    /// Layers with a recurrent state.
    public let linearLayers: Int
    private let pageFloats: Int
    /// Layers with latents.
    public let latentLayers: Int
    // Who may write to which slot and page is decided by `StatePools`: one request, under a hold.
    private nonisolated(unsafe) let memory: UnsafeMutableRawPointer
    private nonisolated(unsafe) let states: UnsafeMutablePointer<Float>
    private nonisolated(unsafe) let pages: UnsafeMutablePointer<Float>

    /// Pools for a model; throws when the machine will not reserve that much.
    public init(configuration: ModelConfiguration, slotCount: Int, pageCount: Int) throws(CheckpointError) {
        self.slotCount = slotCount
        self.pageCount = pageCount
        stateFloats = configuration.headCount * configuration.headWidth * configuration.headWidth
        linearLayers = configuration.linearLayers.count
        latentFloats = configuration.latentWidth + configuration.ropeWidth
        pageFloats = Self.pageTokens * latentFloats
        latentLayers = configuration.fullAttentionLayers.count
        let slotFloats = slotCount * linearLayers * stateFloats
        byteCount = 4 * (slotFloats + pageCount * latentLayers * pageFloats)
        let protection = PROT_READ | PROT_WRITE
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard let memory = mmap(nil, max(byteCount, 1), protection, flags, -1, 0), memory != MAP_FAILED else {
            throw CheckpointError(.unreadable, "\(byteCount) bytes of state memory cannot be reserved")
        }
        madvise(memory, max(byteCount, 1), MADV_HUGEPAGE)
        self.memory = memory
        states = memory.assumingMemoryBound(to: Float.self)
        pages = states + slotFloats
    }

    deinit { munmap(memory, max(byteCount, 1)) }

    /// State [H, D, D] of the `index`-th linear layer in `slot`.
    public func state(slot: Int, linearIndex index: Int) -> UnsafeMutablePointer<Float> {
        states + (slot * linearLayers + index) * stateFloats
    }

    /// Latents [64, R + dr] of the `index`-th MLA layer in `page`.
    public func latents(page: Int, latentIndex index: Int) -> UnsafeMutablePointer<Float> {
        pages + (page * latentLayers + index) * pageFloats
    }

    /// Copies the states of all linear layers, linearLayers * H * D * D floats.
    public func copy(slot: Int, to other: Int) {
        state(slot: other, linearIndex: 0).update(
            from: state(slot: slot, linearIndex: 0), count: linearLayers * stateFloats)
    }

    /// Copies the latents of all MLA layers, latentLayers * 64 * (R + dr) floats.
    public func copy(page: Int, to other: Int) {
        latents(page: other, latentIndex: 0).update(
            from: latents(page: page, latentIndex: 0), count: latentLayers * pageFloats)
    }

    /// Zeroes all states of a slot, for a request that starts.
    public func clear(slot: Int) {
        state(slot: slot, linearIndex: 0).update(repeating: 0, count: linearLayers * stateFloats)
    }
}
