import EventLoop
import WireProtocol

/// A streamed answer on the caller's side. What is not taken is bounded: its bytes by the credit that was granted, its
/// items by the bytes of the smallest that say something.
public final class RPCStream: Sendable {
    private struct State {
        var items: [RPCPayload] = []
        var head = 0
        var result: Result<RPCPayload, RPCError>?
        var consumed = 0
        /// Bytes of items the peer may still send.
        var credit: Int
        var final: RPCPayload?

        /// The first item; what is kept of the list stays within twice of what nobody has taken.
        mutating func takeItem() -> RPCPayload {
            let item = items[head]
            head += 1
            if head == items.count {
                items.removeAll(keepingCapacity: true)
                head = 0
            } else if head >= RPCStream.consumedItems, 2 * head >= items.count {
                items.removeFirst(head)
                head = 0
            }
            return item
        }
    }

    enum Action {
        case grant(UInt32)
        case cancel
    }

    private let loop: any Loop
    private let window: Int
    /// Bytes of the header of a field: an item with less has none.
    private static let smallestItemBytes = 8
    /// Consumed items that are kept until they are half of the list.
    private static let consumedItems = 64
    private let perform: @Sendable (Action) -> Void
    private let waiters = Waiters()
    private let state: LoopBound<State>

    /// The payload of the end frame, once `next` has returned nil.
    public var final: RPCPayload? { state.final }

    init(loop: any Loop, window: Int, perform: @escaping @Sendable (Action) -> Void) {
        self.loop = loop
        self.window = window
        state = LoopBound(State(credit: window), on: loop)
        self.perform = perform
    }

    /// The next item; nil at the end. Cancelling the task cancels the call.
    ///
    /// - Throws: `RPCError` that ended the stream: the peer's, the connection's, or cancelled.
    public func next() async throws(RPCError) -> RPCPayload? {
        if isWaiting {
            await withTaskCancellationHandler {
                await waiters.wait { isWaiting }
            } onCancel: {
                loop.execute { [weak self] in self?.cancel() }
            }
        }
        if state.head < state.items.count {
            let item = state.value.takeItem()
            consume(item.byteCount)
            return item
        }
        switch state.result {
        case .success(let payload):
            state.final = payload
            return nil
        case .failure(let error): throw error
        case nil: throw RPCError(.cancelled, "the stream was cancelled")
        }
    }

    /// Nothing is there to be taken, and no end.
    private var isWaiting: Bool { state.head == state.items.count && state.result == nil }

    /// Gives the call up.
    public func cancel() {
        if state.result == nil { perform(.cancel) }
    }

    /// Takes an item, or says why the peer must not send it.
    func deliver(_ item: RPCPayload) -> String? {
        guard state.credit > 0 else { return "more items than were granted" }
        let limit = window / Self.smallestItemBytes + 1
        guard state.items.count - state.head < limit else {
            return "more than \(limit) items that nobody has taken yet"
        }
        state.value.credit -= item.byteCount
        state.value.items.append(item)
        waiters.wake()
        return nil
    }

    func finish(_ result: Result<RPCPayload, RPCError>) {
        state.result = result
        waiters.wake()
    }

    private func consume(_ bytes: Int) {
        state.consumed += bytes
        guard state.consumed >= window / 4, state.result == nil else { return }
        let consumed = state.consumed
        state.credit += consumed
        perform(.grant(UInt32(clamping: consumed)))
        state.consumed = 0
    }
}
