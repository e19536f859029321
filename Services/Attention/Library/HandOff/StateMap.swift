import HybridModel
import RPC
import Scheduling
import StatePools
import WireProtocol

/// Where the state of a request lies, layer by layer, and how it travels.
struct StateMap {
    /// What is behind the pools.
    enum Content {
        /// The state itself.
        case memory(StateMemory)
        /// Nothing: zeros travel, and are dropped.
        case zeros
        /// Nothing, and messages go without bodies.
        case none
    }

    let content: Content
    /// What a peer must have too.
    let layout: StateLayout
    /// What each layer of the model keeps.
    let places: [LayerPlace]
    let fingerprint: String

    init(memory: StateMemory, places: [LayerPlace], fingerprint: String) {
        self.init(
            content: .memory(memory),
            layout: StateLayout(
                latentLayers: UInt32(memory.latentLayers), latentFloats: UInt32(memory.latentFloats),
                linearLayers: UInt32(memory.linearLayers), stateFloats: UInt32(memory.stateFloats)),
            places: places, fingerprint: fingerprint)
    }

    init(content: Content, layout: StateLayout, places: [LayerPlace], fingerprint: String) {
        self.content = content
        self.layout = layout
        self.places = places
        self.fingerprint = fingerprint
    }

    /// Everything that moves for a prompt.
    func manifest(promptTokens: Int, generation: UInt64) throws(TransferRefusal) -> TransferManifest {
        let layers = places.enumerated().map { layer, place in
            switch place {
            case .latent:
                TransferLayer(index: layer, kind: .latent, element: .float32, shape: [Int(layout.latentFloats)])
            case .linear:
                TransferLayer(index: layer, kind: .recurrent, element: .float32, shape: [Int(layout.stateFloats)])
            }
        }
        return try TransferManifest(
            fingerprint: fingerprint, positions: 0..<promptTokens, pageTokens: StateMemory.pageTokens, layers: layers,
            generation: generation)
    }

    /// The ledger's name of a segment; nil when no layer keeps such a thing.
    func entry(_ segment: StateSegment) -> TransferSegment? {
        guard Int(segment.layer) < places.count else { return nil }
        switch (segment.kind, places[Int(segment.layer)]) {
        case (.latents, .latent(let index)):
            return .latents(
                layer: index, tokens: Int(segment.first)..<(Int(segment.first) + Int(segment.count)))
        case (.state, .linear(let index)): return .recurrent(layer: index)
        default: return nil
        }
    }

    /// Copies a segment out of a request's memory; nil when it travels without a body.
    func read(_ segment: StateSegment, _ reservation: Reservation) -> AlignedBuffer? {
        if case .none = content { return nil }
        let body = AlignedBuffer(count: segment.byteCount(layout))
        guard case .memory(let memory) = content else { return body }
        let floats = body.pointer.assumingMemoryBound(to: Float.self)
        switch places[Int(segment.layer)] {
        case .latent(let index):
            memory.copyLatents(
                pages: reservation.pages, tokens: Int(segment.first)..<Int(segment.first + segment.count),
                latentIndex: index, into: floats)
        case .linear(let index):
            floats.update(
                from: memory.state(slot: reservation.slot, linearIndex: index), count: memory.stateFloats)
        }
        return body
    }

    /// True when `body` is what a segment must have.
    func fits(_ body: AlignedBuffer?, _ segment: StateSegment) -> Bool {
        if case .none = content { return (body?.count ?? 0) == 0 }
        return body?.count == segment.byteCount(layout)
    }

    /// Puts a segment that the ledger took into a request's memory.
    func write(_ segment: StateSegment, _ body: AlignedBuffer?, _ reservation: Reservation) {
        guard case .memory(let memory) = content, let body else { return }
        let floats = UnsafePointer(body.pointer.assumingMemoryBound(to: Float.self))
        switch places[Int(segment.layer)] {
        case .latent(let index):
            memory.storeLatents(
                pages: reservation.pages, tokens: Int(segment.first)..<Int(segment.first + segment.count),
                latentIndex: index, from: floats)
        case .linear(let index):
            memory.state(slot: reservation.slot, linearIndex: index)
                .update(from: floats, count: memory.stateFloats)
        }
    }
}
