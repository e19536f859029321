import HybridModel
import RPC
import Scheduling
import Serving
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

    /// Everything that moves for a prompt, of whose latents the receiver has those before `first`.
    func manifest(promptTokens: Int, from first: Int, generation: UInt64) throws(TransferRefusal) -> TransferManifest {
        let layers = places.enumerated().map { layer, place in
            switch place {
            case .latent:
                TransferLayer(index: layer, kind: .latent, element: .float32, shape: [Int(layout.latentFloats)])
            case .linear:
                TransferLayer(index: layer, kind: .recurrent, element: .float32, shape: [Int(layout.stateFloats)])
            }
        }
        return try TransferManifest(
            fingerprint: fingerprint, positions: min(first, promptTokens)..<promptTokens,
            pageTokens: StateMemory.pageTokens, layers: layers,
            generation: generation)
    }

    /// Bytes of a segment: fp32.
    func byteCount(_ segment: TransferSegment) -> Int {
        switch segment {
        case .latents(_, let tokens): 4 * tokens.count * Int(layout.latentFloats)
        case .state: 4 * Int(layout.stateFloats)
        }
    }

    /// Copies a segment that the transfer's ledger took out of a request's memory; nil when it travels without a body.
    func read(_ segment: TransferSegment, _ reservation: Reservation) -> AlignedBuffer? {
        if case .none = content { return nil }
        let body = AlignedBuffer(count: byteCount(segment))
        guard case .memory(let memory) = content else { return body }
        let floats = body.pointer.assumingMemoryBound(to: Float.self)
        switch (segment, places[segment.layer]) {
        case (.latents(_, let tokens), .latent(let index)):
            memory.copyLatents(pages: reservation.pages, tokens: tokens, latentIndex: index, into: floats)
        case (.state, .linear(let index)):
            floats.update(
                from: memory.state(slot: reservation.slot, linearIndex: index), count: memory.stateFloats)
        default: preconditionFailure("layer \(segment.layer) keeps no such state")
        }
        return body
    }

    /// True when `body` is what a segment must have.
    func fits(_ body: AlignedBuffer?, _ segment: TransferSegment) -> Bool {
        if case .none = content { return (body?.count ?? 0) == 0 }
        return body?.count == byteCount(segment)
    }

    /// Puts a segment that the transfer's ledger took into a request's memory.
    func write(_ segment: TransferSegment, _ body: AlignedBuffer?, _ reservation: Reservation) {
        guard case .memory(let memory) = content, let body else { return }
        let floats = UnsafePointer(body.pointer.assumingMemoryBound(to: Float.self))
        switch (segment, places[segment.layer]) {
        case (.latents(_, let tokens), .latent(let index)):
            memory.storeLatents(pages: reservation.pages, tokens: tokens, latentIndex: index, from: floats)
        case (.state, .linear(let index)):
            memory.state(slot: reservation.slot, linearIndex: index)
                .update(from: floats, count: memory.stateFloats)
        default: preconditionFailure("layer \(segment.layer) keeps no such state")
        }
    }
}

extension StateSegment {
    /// The item that carries a segment of a prompt of so many tokens.
    init(_ segment: TransferSegment, promptCount: Int, generation: UInt64) {
        switch segment {
        case .latents(let layer, let tokens):
            self.init(
                kind: .latents, layer: UInt32(layer), first: UInt32(tokens.lowerBound), count: UInt32(tokens.count),
                generation: generation)
        case .state(let layer):
            self.init(
                kind: .state, layer: UInt32(layer), first: 0, count: UInt32(promptCount), generation: generation)
        }
    }

    /// The segment it carries; nil for a sign of life.
    var part: TransferSegment? {
        switch kind {
        case .progress: nil
        case .latents: .latents(layer: Int(layer), tokens: Int(first)..<Int(first) + Int(count))
        case .state: .state(layer: Int(layer))
        }
    }
}
