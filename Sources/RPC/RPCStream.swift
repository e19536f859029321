import EventLoop
import WireProtocol

/// A streamed answer on the caller's side. What is not taken is bounded: its bytes by the credit that was granted, its
/// items by the bytes of the smallest that say something.
public final class RPCStream: @unchecked Sendable {
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
    private let perform: (Action) -> Void
    private var items: [RPCPayload] = []
    private var head = 0
    private var result: Result<RPCPayload, RPCError>?
    private let waiters = Waiters()
    private var consumed = 0
    /// Bytes of items the peer may still send.
    private var credit: Int

    /// The payload of the end frame, once `next` has returned nil.
    public private(set) var final: RPCPayload?

    init(loop: any Loop, window: Int, perform: @escaping (Action) -> Void) {
        self.loop = loop
        self.window = window
        credit = window
        self.perform = perform
    }

    /// The next item; nil at the end. Cancelling the task cancels the call.
    ///
    /// - Throws: `RPCError` that ended the stream: the peer's, the connection's, or cancelled.
    public func next() async throws(RPCError) -> RPCPayload? {
        if head == items.count, result == nil {
            await withTaskCancellationHandler {
                await waiters.wait { head == items.count && result == nil }
            } onCancel: {
                loop.execute { [weak self] in self?.cancel() }
            }
        }
        if head < items.count {
            let item = takeItem()
            consume(item.byteCount)
            return item
        }
        switch result {
        case .success(let payload):
            final = payload
            return nil
        case .failure(let error): throw error
        case nil: throw RPCError(.cancelled, "the stream was cancelled")
        }
    }

    /// Gives the call up.
    public func cancel() {
        if result == nil { perform(.cancel) }
    }

    /// Takes an item, or says why the peer must not send it.
    func deliver(_ item: RPCPayload) -> String? {
        guard credit > 0 else { return "more items than were granted" }
        let limit = window / Self.smallestItemBytes + 1
        guard items.count - head < limit else { return "more than \(limit) items that nobody has taken yet" }
        credit -= item.byteCount
        items.append(item)
        waiters.wake()
        return nil
    }

    /// The first item; what is kept of the list stays within twice of what nobody has taken.
    private func takeItem() -> RPCPayload {
        let item = items[head]
        head += 1
        if head == items.count {
            items.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= Self.consumedItems, 2 * head >= items.count {
            items.removeFirst(head)
            head = 0
        }
        return item
    }

    func finish(_ result: Result<RPCPayload, RPCError>) {
        self.result = result
        waiters.wake()
    }

    private func consume(_ bytes: Int) {
        consumed += bytes
        guard consumed >= window / 4, result == nil else { return }
        credit += consumed
        perform(.grant(UInt32(clamping: consumed)))
        consumed = 0
    }
}
