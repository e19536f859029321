import Checkpoint
import EventLoop
import GatewayCore
import Observability
import RPC
import Scheduling
import Serving
import WireProtocol

/// What HTTP and the binary port share: checks a request, and does what its `Completion` says until it is over.
public final class CompletionEngine: Sendable {
    /// Name under which the model is served.
    public let modelName: String
    /// What `config.json` says.
    public let configuration: ModelConfiguration
    /// Tokenizer, if the checkpoint has one.
    public let codec: (any TextCodec)?

    /// What requests over HTTP are sampled with where they say nothing.
    let defaults: RequestDefaults
    /// True when no weights are there and answers are dummy text.
    public let isEmulated: Bool
    /// Bytes of the longest token.
    private let longestToken: Int
    /// Bytes of text that the context could hold at best.
    private let textLimit: Int
    private let router: InstanceRouter
    /// Where completions run.
    var loop: any Loop { router.loop }
    private let timeoutMicroseconds: UInt64
    private let metrics: GatewayMetrics
    private let live: LiveRequests
    /// Told about instances that refuse what was checked here, or answer what makes no sense: an address and why.
    private let onDisagreement: @Sendable (String, RPCError) -> Void

    /// An engine over attention instances.
    init(
        modelName: String, configuration: ModelConfiguration, codec: (any TextCodec)?, router: InstanceRouter,
        timeoutMicroseconds: UInt64, telemetry: Telemetry, metrics: GatewayMetrics, isEmulated: Bool = false,
        onDisagreement: @escaping @Sendable (String, RPCError) -> Void = { _, _ in },
        defaults: RequestDefaults = RequestDefaults()
    ) {
        self.defaults = defaults
        self.isEmulated = isEmulated
        self.onDisagreement = onDisagreement
        self.metrics = metrics
        live = telemetry.requests
        self.modelName = modelName
        self.configuration = configuration
        self.codec = codec
        let lengths = (0..<configuration.vocabularySize).lazy.map { codec?.bytes(of: UInt32($0))?.count ?? 0 }
        longestToken = lengths.max() ?? 0
        let (limit, overflow) = longestToken.multipliedReportingOverflow(by: configuration.maximumPositions)
        textLimit = overflow ? .max : limit
        self.router = router
        self.timeoutMicroseconds = timeoutMicroseconds
    }

    /// Tokens of prompt and answer that one request may have: the context, or what the largest instance holds of it.
    /// On the loop.
    var requestTokens: Int { min(configuration.maximumPositions, router.state.fleet.placement.largestRequest ?? .max) }

    /// True when a request could be placed.
    public var isReady: Bool { router.isReady }

    /// Why none could be, one sentence; nil when one could.
    public var outage: String? { router.outage }

    /// True for the name of the model that is served, and for no name.
    public func serves(_ model: String) -> Bool { model.isEmpty || model == modelName }

    /// Refuses a text that could not fit into the context if all of its tokens were the longest there is, before it takes the
    /// time to find its tokens.
    private func checkLength(_ prompt: GenerateRequest.Prompt) throws(RPCError) {
        let count =
            switch prompt {
            case .tokens: 0
            case .text(let text): text.utf8.count
            case .chat(let turns): turns.reduce(0) { $0 + $1.content.utf8.count }
            }
        // Without a tokenizer no text is taken at all, which is said where it is encoded.
        guard codec != nil, count > textLimit else { return }
        throw RPCError(
            .limitExceeded,
            "prompt has \(count) bytes of text, and the context of \(configuration.maximumPositions) tokens cannot hold "
                + "more than \(textLimit): no token of this model is longer than \(longestToken) bytes")
    }

    /// What a client of the binary port asks, checked against the model.
    ///
    /// - Throws: `RPCError` that names what of the request is wrong.
    public func request(_ message: GenerateRequest) throws(RPCError) -> Request {
        guard serves(message.model) else {
            throw RPCError(.invalidArgument, "model \"\(message.model)\" is not served here; \"\(modelName)\" is")
        }
        var request = try request(message.request, after: message.prompt, ignoresEnd: message.ignoresEnd)
        request.priority = CompletionJob.plainPriority
        return request
    }

    /// The request that asks for what `plain` does after a prompt, checked against the model: nothing that an instance
    /// would refuse is left, so that what one refuses is never the client's fault.
    func request(
        _ plain: Request, after prompt: GenerateRequest.Prompt, ignoresEnd: Bool, thinking: Bool = false,
        addingSpecialTokens: Bool = true
    ) throws(RPCError) -> Request {
        try checkLength(prompt)
        let tokens = try encode(prompt, thinking: thinking, addingSpecialTokens: addingSpecialTokens)
        guard !tokens.isEmpty else { throw RPCError(.invalidArgument, "prompt is empty") }
        var request = plain.with(prompt: tokens)
        let stops = (ignoresEnd ? [] : configuration.endTokenIDs) + request.stopTokens
        request.stopTokens = Array(stops.prefix(2 * MessageLimits.stopTokens))
        try checkTokens(request)
        try checkLengths(request)
        return request
    }

    private func checkTokens(_ request: Request) throws(RPCError) {
        let vocabulary = configuration.vocabularySize
        if let id = request.tokens.first(where: { Int($0) >= vocabulary }) {
            throw RPCError(.invalidArgument, "prompt holds token id \(id), the vocabulary has \(vocabulary)")
        }
        if let biased = request.sampling.logitBias.first(where: { Int($0.id) >= vocabulary }) {
            throw RPCError(.invalidArgument, "logit_bias holds token id \(biased.id), the vocabulary has \(vocabulary)")
        }
    }

    /// Refuses a request that no instance would take for its size, or for having no answer.
    func checkLengths(_ request: Request) throws(RPCError) {
        let lengths = "prompt (\(request.promptCount)) and max_tokens (\(request.maximumTokens)) together"
        guard request.mostTokens <= configuration.maximumPositions else {
            throw RPCError(
                .limitExceeded, "\(lengths) exceed the context of \(configuration.maximumPositions) tokens")
        }
        guard !request.sampling.hasPenalties || request.mostTokens <= MessageLimits.penalisedTokens else {
            throw RPCError(
                .limitExceeded, "with penalties \(lengths) are \(MessageLimits.penalisedTokens) tokens at most")
        }
        guard request.minimumTokens > 0 else { return }
        let stops = Set(request.stopTokens).count { Int($0) < configuration.vocabularySize }
        guard stops < configuration.vocabularySize else {
            throw RPCError(.invalidArgument, "before min_tokens every token is banned: all of them are stop tokens")
        }
    }

    /// Token ids of a prompt as they come from the tokenizer.
    func encode(
        _ prompt: GenerateRequest.Prompt, thinking: Bool = false, addingSpecialTokens: Bool = true
    ) throws(RPCError) -> [UInt32] {
        if case .tokens(let ids) = prompt { return ids }
        guard let codec else {
            throw RPCError(.invalidArgument, "prompt is text, but this model has no tokenizer: send token ids")
        }
        do {
            switch prompt {
            case .tokens(let ids): return ids
            case .text(let text): return try codec.encode(text, addingSpecialTokens: addingSpecialTokens)
            case .chat(let turns):
                guard !turns.isEmpty else { throw RPCError(.invalidArgument, "it has no messages") }
                return try codec.encode(turns, thinking: thinking)
            }
        } catch {
            throw RPCError(.invalidArgument, "prompt: \((error as? RPCError)?.message ?? "\(error)")")
        }
    }

    /// How long an attempt waits for a connection that was lost before the request is placed elsewhere.
    private static let connectMicroseconds: UInt64 = 500_000

    /// Streams a completion to `emit`, and returns it with its end. When an instance is lost, it goes on at another from
    /// the tokens it had, without repeating or losing one. `admitted` is called once nothing is known any more that would
    /// refuse the request: it waits for room, or runs.
    ///
    /// - completion: made, and its prompt tokenized if it is not, in the time that is measured.
    /// - Throws: `RPCError` that the client is told.
    package func complete(
        _ completion: @autoclosure () throws(RPCError) -> Completion, context: CallContext = CallContext(),
        admitted: () -> Void = {}, emit: (GenerateItem, Completion) async throws(RPCError) -> Void
    ) async throws(RPCError) -> Completion {
        var meter = CompletionMeter(metrics)
        let number = live.begin(.tokenizing, trace: context.trace, name: context.name)
        defer { live.end(number) }
        var promptTokens = 0
        do throws(RPCError) {
            let completion = try completion()
            promptTokens = completion.request.promptCount
            try checkFrame(completion.request)
            live.enter(.queued, number, promptTokens: promptTokens)
            let done = try await run(completion, context, number, &meter, admitted: admitted, emit: emit)
            guard let end = done.end else { preconditionFailure("a completion is over and has no end") }
            meter.end(.success(end), promptTokens: promptTokens)
            return done
        } catch {
            meter.end(.failure(error), promptTokens: promptTokens)
            throw error
        }
    }

    private func checkFrame(_ request: Request) throws(RPCError) {
        let (bytes, limit) = (
            TokensRequest(request).encoded().count + MessageLimits.textBytes, FrameLimits().metadata
        )
        guard bytes > limit else { return }
        throw RPCError(
            .limitExceeded,
            "prompt (\(request.promptCount) tokens) makes a message of \(bytes) bytes, the limit is \(limit)")
    }

    /// Does what the completion says, one thing after the other.
    private func run(
        _ completion: Completion, _ context: CallContext, _ number: UInt64, _ meter: inout CompletionMeter,
        admitted: () -> Void, emit: (GenerateItem, Completion) async throws(RPCError) -> Void
    ) async throws(RPCError) -> Completion {
        let limit = min(timeoutMicroseconds, context.timeoutMicroseconds ?? .max)
        let id = router.begin(completion, decoder: codec?.makeDecoder(), timeoutMicroseconds: limit)
        defer { router.end(id) }
        var action = router.tell(id, .free)
        // Where no instance is there, the request may be refused for that before long.
        var isAdmitted = false
        func admit() {
            if !isAdmitted { admitted() }
            isAdmitted = true
        }
        while true {
            switch action {
            case .open(let placement):
                admit()
                // An attempt that follows another at once has waited, too.
                live.enter(.queued, number, place: "")
                if placement.attempt == 0 { meter.placed() } else { metrics.restarts.increment() }
                live.enter(.connecting, number, place: router.name(of: placement.decode))
                action = try await attempt(id, placement, context, number, &meter, emit: emit)
            case .placeAgain(let loss):
                router.report(.broke(id, loss))
                action = router.tell(id, .free)
            case .finish(let tail):
                guard let done = router.end(id) else { preconditionFailure("completion \(id) ends twice") }
                if !tail.isEmpty { try await emit(GenerateItem(text: tail, tokens: []), done) }
                return done
            case .fail(let failure): throw RPCError(failure)
            case .wait:
                if router.isReady { admit() }
                live.enter(.queued, number, place: "")
                action = await router.next(id)
            case .resume, .emit, .cancel: preconditionFailure("a completion without a stream asks for \(action)")
            }
        }
    }

    /// Takes one attempt's tokens until its stream is over. Returns what is to be done then; throws what its client did to
    /// it.
    private func attempt(
        _ id: UInt64, _ placement: Placement, _ context: CallContext, _ number: UInt64,
        _ meter: inout CompletionMeter, emit: (GenerateItem, Completion) async throws(RPCError) -> Void
    ) async throws(RPCError) -> Completion.Action {
        let stream: RPCStream
        do throws(RPCError) { stream = try await open(id, placement, context, number) } catch {
            return broke(id, placement, error)
        }
        router.opened(id, stream)
        defer { router.close(id) }
        var isFirst = true
        while true {
            let event: Completion.Event
            do throws(RPCError) { event = try await Self.event(of: stream) } catch {
                return broke(id, placement, error)
            }
            let arrival = Stopwatch.now
            let action = router.tell(id, event)
            guard case .emit(let item) = action else {
                if case .wait = action { continue }
                return action
            }
            if isFirst {
                isFirst = false
                router.report(.firstToken(id, attempt: placement.attempt))
                live.enter(.streaming, number)
            }
            live.token(number, now: arrival)
            meter.token(at: arrival)
            do throws(RPCError) { try await emit(item, router.completion(id)) } catch {
                _ = router.tell(id, .gone)
                throw error
            }
            meter.delivered(since: arrival)
            let next = router.tell(id, .delivered)
            guard case .wait = next else { return next }
        }
    }

    private func open(
        _ id: UInt64, _ placement: Placement, _ context: CallContext, _ number: UInt64
    ) async throws(RPCError) -> RPCStream {
        let completion = router.completion(id)
        let (client, left) = (router.client(placement.decode), router.left(until: completion.deadline))
        // An instance that is not there must not hold a request that another could take.
        try await client.waitReady(timeoutMicroseconds: min(Self.connectMicroseconds, left))
        live.enter(.prefill, number)
        let prefill = placement.isColocated ? "" : router.name(of: placement.prefill)
        let message = TokensRequest(completion.request, prefill: prefill, wantsSigns: true)
        return try await client.stream(
            .generateTokens, RPCPayload(metadata: message.encoded()), timeoutMicroseconds: left, trace: context.trace)
    }

    /// What comes next on a stream.
    private static func event(of stream: RPCStream) async throws(RPCError) -> Completion.Event {
        let payload = try await stream.next()
        do throws(WireError) {
            guard let payload else { return .ended(try End(decoding: stream.final?.metadata ?? []).reason) }
            switch try TokensPart(decoding: payload.metadata) {
            case .token(let token, let cached): return .token(token, cached: cached)
            case .sign(let work): return .sign(work: work)
            }
        } catch {
            throw RPCError(.internal, "attention answered with what cannot be read: \(error)")
        }
    }

    private func broke(_ id: UInt64, _ placement: Placement, _ error: RPCError) -> Completion.Action {
        guard !Task.isCancelled else { return router.tell(id, .gone) }
        let before = router.completion(id).disagreements
        let name = router.name(of: placement.decode)
        let action = router.tell(id, .broke(Failure(error)))
        if router.completion(id).disagreements > before { onDisagreement(name, error) }
        return action
    }
}

extension Failure {
    /// What an instance, or the connection to it, failed of.
    init(_ error: RPCError) { self.init(code: error.code, message: error.message, link: error.link) }
}

extension RPCError {
    /// What a client is told.
    init(_ failure: Failure) { self.init(failure.code, failure.message, link: failure.link) }
}
