import Checkpoint
import EventLoop
import Observability
import RPC
import Serving
import WireProtocol

/// What HTTP and the binary port share: checks a request, finds an attention instance, streams text. Confined to its
/// loop.
public final class CompletionEngine: @unchecked Sendable {
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
    private let timeoutMicroseconds: UInt64
    private let metrics: GatewayMetrics
    private let live: LiveRequests
    /// Told about instances that refuse what was checked here, or answer what makes no sense: an address and why.
    private let onDisagreement: @Sendable (String, RPCError) -> Void
    /// Requests being streamed.
    public private(set) var activeCount = 0

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
    var requestTokens: Int { min(configuration.maximumPositions, router.largestRequest ?? .max) }

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

    /// Streams a completion to `emit`, and returns how it ended. When an instance is lost, the request goes on at another
    /// from the tokens it had, without repeating or losing one. `admitted` is called once nothing is known any more that
    /// would refuse the request: it waits for room, or runs.
    ///
    /// - request: made, and its prompt tokenized if it is not, in the time that is measured.
    /// - Throws: `RPCError` that the client is told.
    public func complete(
        _ request: @autoclosure () throws(RPCError) -> Request, context: CallContext = CallContext(),
        admitted: () -> Void = {}, emit: (GenerateItem) async throws(RPCError) -> Void
    ) async throws(RPCError) -> End {
        var meter = CompletionMeter(metrics)
        let number = live.begin(.tokenizing, trace: context.trace, name: context.name)
        defer { live.end(number) }
        var promptTokens = 0
        do throws(RPCError) {
            let request = try request()
            promptTokens = request.promptCount
            let end = try await complete(request, context, number, &meter, admitted: admitted, emit: emit)
            meter.end(.success(end), promptTokens: promptTokens)
            return end
        } catch {
            meter.end(.failure(error), promptTokens: promptTokens)
            throw error
        }
    }

    private func complete(
        _ request: Request, _ context: CallContext, _ number: UInt64, _ meter: inout CompletionMeter,
        admitted: () -> Void, emit: (GenerateItem) async throws(RPCError) -> Void
    ) async throws(RPCError) -> End {
        let (bytes, limit) = (
            TokensRequest(request).encoded().count + MessageLimits.textBytes, FrameLimits().metadata
        )
        guard bytes <= limit else {
            throw RPCError(
                .limitExceeded,
                "prompt (\(request.promptCount) tokens) makes a message of \(bytes) bytes, the limit is \(limit)")
        }
        activeCount += 1
        defer { activeCount -= 1 }
        live.enter(.queued, number, promptTokens: request.promptCount)
        let id = try router.submit(request)
        defer { router.ended(id) }
        // Where no instance is there, the request may be refused for that before long.
        let isReady = router.isReady
        if isReady { admitted() }
        var progress = CompletionProgress(request, decoder: codec?.makeDecoder())
        let deadline = router.now + min(timeoutMicroseconds, context.timeoutMicroseconds ?? .max)
        var disagreements = 0
        while true {
            let route = try await router.next(id, until: deadline)
            if route.placement.attempt == 0, !isReady { admitted() }
            if route.placement.attempt == 0 { meter.placed() } else { metrics.restarts.increment() }
            live.enter(.connecting, number, place: route.name)
            let failure = try await run(context, id, route, until: deadline, number, &progress, &meter, emit: emit)
            guard let failure, progress.request.end == nil else { return try await finish(&progress, emit: emit) }
            guard !Task.isCancelled else { throw failure }
            live.enter(.queued, number, place: "")
            try placeAgain(id, route, failure, progress, until: deadline, &disagreements)
        }
    }

    /// Gives an attempt that failed back to the router, or throws what the client is told.
    private func placeAgain(
        _ id: UInt64, _ route: InstanceRouter.Route, _ failure: RPCError, _ progress: CompletionProgress,
        until deadline: UInt64, _ disagreements: inout Int
    ) throws(RPCError) {
        guard !router.isMoved(id, route) else { return }
        let phase: FaultTable.Phase =
            router.now >= deadline ? .timeUp : progress.request.generatedCount == 0 ? .prompt : .tokens
        let verdict = FaultTable.verdict(failure.code, at: FaultTable.Place(failure.link), in: phase)
        if verdict.retry == .once {
            onDisagreement(route.name, failure)
            disagreements += 1
        }
        guard verdict.retry != .never, disagreements < 2 else {
            throw RPCError(verdict.answer, "\(route.name): \(failure.message)")
        }
        router.broke(id, route, failure, verdict)
    }

    /// Takes one attempt's tokens until its stream ends or a stop string is met. Returns what broke the attempt, nil when
    /// nothing did; throws what its client did to it.
    private func run(
        _ context: CallContext, _ id: UInt64, _ route: InstanceRouter.Route, until deadline: UInt64, _ number: UInt64,
        _ progress: inout CompletionProgress, _ meter: inout CompletionMeter,
        emit: (GenerateItem) async throws(RPCError) -> Void
    ) async throws(RPCError) -> RPCError? {
        let stream: RPCStream
        do throws(RPCError) {
            stream = try await open(progress.request, context, route, until: deadline, number)
        } catch {
            return error
        }
        router.onRestart(id) { stream.cancel() }
        router.watch(id)
        defer {
            router.unwatch(id)
            router.onRestart(id, nil)
            stream.cancel()
        }
        var isFirst = true
        while true {
            let token: Token
            do throws(RPCError) {
                guard let payload = try await stream.next() else { break }
                switch try decode({ () throws(WireError) in try TokensPart(decoding: payload.metadata) }) {
                case .token(let item): token = item
                case .sign(let work):
                    router.sign(id, work: work)
                    continue
                }
            } catch {
                return error
            }
            router.token(id)
            let arrival = Stopwatch.now
            if isFirst {
                isFirst = false
                router.firstToken(id, route)
                live.enter(.streaming, number)
            }
            live.token(number, now: arrival)
            meter.token(at: arrival)
            try await emit(progress.take(token))
            meter.delivered(since: arrival)
            if progress.end != nil { return nil }
        }
        do throws(RPCError) {
            progress.end = try decode { () throws(WireError) in
                try End(decoding: stream.final?.metadata ?? [])
            }.reason
            return nil
        } catch {
            return error
        }
    }

    private func open(
        _ request: Request, _ context: CallContext, _ route: InstanceRouter.Route, until deadline: UInt64,
        _ number: UInt64
    ) async throws(RPCError) -> RPCStream {
        let now = router.now
        guard now < deadline else { throw RPCError(.deadlineExceeded, "the request's time is over") }
        // An instance that is not there must not hold a request that another could take.
        try await route.client.waitReady(timeoutMicroseconds: min(Self.connectMicroseconds, deadline - now))
        live.enter(.prefill, number)
        let message = TokensRequest(request, prefill: route.prefill, wantsSigns: true)
        return try await route.client.stream(
            .generateTokens, RPCPayload(metadata: message.encoded()), timeoutMicroseconds: deadline - now,
            trace: context.trace)
    }

    private func finish(
        _ progress: inout CompletionProgress, emit: (GenerateItem) async throws(RPCError) -> Void
    ) async throws(RPCError) -> End {
        let tail = progress.flush()
        if !tail.isEmpty { try await emit(GenerateItem(text: tail, tokens: [])) }
        let request = progress.request
        return End(
            reason: progress.end ?? request.end?.reason ?? .length, promptTokens: request.promptCount,
            completionTokens: request.generatedCount)
    }

    private func decode<Value>(_ body: () throws(WireError) -> Value) throws(RPCError) -> Value {
        do throws(WireError) { return try body() } catch {
            throw RPCError(.internal, "attention answered with what cannot be read: \(error)")
        }
    }
}
