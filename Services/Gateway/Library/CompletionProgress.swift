import RPC
import WireProtocol

/// What a completion has come to, over all its attempts.
struct CompletionProgress {
    /// Tokens so far.
    private(set) var ids: [UInt32] = []
    /// How it ended, once it has.
    var end: FinishReason?
    private var decoder: (any TextDecoder)?
    private var matcher: StopMatcher
    private var isCut = false

    init(_ request: GenerateRequest, decoder: (any TextDecoder)?) {
        self.decoder = decoder
        matcher = StopMatcher(stops: request.stop, minimumTokens: Int(request.minimumTokens))
    }

    /// The item for one more token; an end token has no text. Sets `end` when a stop string is met.
    mutating func take(_ token: TokensItem, stopTokenIDs: [UInt32]) -> GenerateItem {
        ids.append(token.token.id)
        let isStop = stopTokenIDs.contains(token.token.id)
        let step = matcher.append(isStop ? "" : decoder?.append(token.token.id) ?? "")
        if step.stopped { (end, isCut) = (.stop, true) }
        return GenerateItem(text: step.text, tokens: [token.token], top: token.top)
    }

    /// True when no token can follow, though the stream broke before it said so.
    func isComplete(_ message: TokensRequest) -> Bool {
        ids.count >= Int(message.maxTokens) || ids.last.map(message.stopTokenIDs.contains) ?? false
    }

    /// Text that was held back; none after a stop string.
    mutating func flush() -> String {
        if isCut { return "" }
        let rest = matcher.append(decoder?.flush() ?? "")
        return rest.text + (rest.stopped ? "" : matcher.flush())
    }
}
