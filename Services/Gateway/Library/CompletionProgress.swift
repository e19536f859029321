import Serving
import WireProtocol

/// What a completion has come to, over all its attempts.
struct CompletionProgress {
    /// The request with the tokens so far.
    private(set) var request: Request
    /// How it ended, once it has.
    var end: End.Reason?
    private var decoder: (any TextDecoder)?
    private var matcher: StopMatcher
    private var isCut = false

    init(_ request: Request, decoder: (any TextDecoder)?) {
        self.request = request
        self.decoder = decoder
        matcher = StopMatcher(stops: request.stopTexts, minimumTokens: request.minimumTokens)
    }

    /// The item for one more token; an end token has no text. Sets `end` when a stop string is met.
    mutating func take(_ token: Token) -> GenerateItem {
        request.append(token.id)
        let isStop = request.stopTokens.contains(token.id)
        let step = matcher.append(isStop ? "" : decoder?.append(token.id) ?? "")
        if step.stopped { (end, isCut) = (.stop, true) }
        return GenerateItem(text: step.text, tokens: [token])
    }

    /// Text that was held back; none after a stop string.
    mutating func flush() -> String {
        if isCut { return "" }
        let rest = matcher.append(decoder?.flush() ?? "")
        return rest.text + (rest.stopped ? "" : matcher.flush())
    }
}
