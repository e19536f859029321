import Checkpoint
import EventLoop
import Observability
import RPC
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

    /// Prompt ids of a request, checked against the model.
    public func promptTokens(
        _ request: GenerateRequest, thinking: Bool = false, addingSpecialTokens: Bool = true
    ) throws(RPCError) -> [UInt32] {
        guard serves(request.model) else {
            throw RPCError(.invalidArgument, "model \"\(request.model)\" is not served here; \"\(modelName)\" is")
        }
        try checkLength(request.prompt)
        let tokens = try encode(request.prompt, thinking: thinking, addingSpecialTokens: addingSpecialTokens)
        guard !tokens.isEmpty else { throw RPCError(.invalidArgument, "prompt is empty") }
        if let id = tokens.first(where: { Int($0) >= configuration.vocabularySize }) {
            throw RPCError(
                .invalidArgument, "prompt holds token id \(id), the vocabulary has \(configuration.vocabularySize)")
        }
        if let biased = request.sampling.logitBias.first(where: { Int($0.id) >= configuration.vocabularySize }) {
            throw RPCError(
                .invalidArgument,
                "logit_bias holds token id \(biased.id), the vocabulary has \(configuration.vocabularySize)")
        }
        try checkLengths(request, promptTokens: tokens.count)
        return tokens
    }

    /// Everything that an instance would refuse for its size or for having no answer, so that what one refuses is never
    /// the client's fault.
    private func checkLengths(_ request: GenerateRequest, promptTokens: Int) throws(RPCError) {
        let total = promptTokens + Int(request.maxTokens)
        guard total <= configuration.maximumPositions else {
            throw RPCError(
                .limitExceeded,
                "prompt (\(promptTokens)) and max_tokens (\(request.maxTokens)) together exceed the context of "
                    + "\(configuration.maximumPositions) tokens")
        }
        guard !request.sampling.hasPenalties || total <= MessageLimits.penalisedTokens else {
            throw RPCError(
                .limitExceeded,
                "with penalties prompt (\(promptTokens)) and max_tokens (\(request.maxTokens)) together are "
                    + "\(MessageLimits.penalisedTokens) tokens at most")
        }
        guard request.minimumTokens > 0 else { return }
        let stops = Set(stopTokens(of: request)).count { Int($0) < configuration.vocabularySize }
        guard stops < configuration.vocabularySize else {
            throw RPCError(.invalidArgument, "before min_tokens every token is banned: all of them are stop tokens")
        }
    }

    private func stopTokens(of request: GenerateRequest) -> [UInt32] {
        Array(((request.ignoresEnd ? [] : configuration.endTokenIDs) + request.stopTokenIDs).prefix(128))
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
    public func complete(
        _ request: GenerateRequest, context: CallContext = CallContext(), admitted: () -> Void = {},
        emit: (GenerateItem) async throws(RPCError) -> Void
    ) async throws(RPCError) -> GenerateEnd {
        var meter = CompletionMeter(metrics)
        let number = live.begin(.tokenizing, trace: context.trace, name: context.name)
        defer { live.end(number) }
        var promptTokens = 0
        do throws(RPCError) {
            let prompt = try self.promptTokens(request)
            promptTokens = prompt.count
            let end = try await complete(
                request, prompt, context, number, &meter, admitted: admitted, emit: emit)
            meter.end(.success(end), promptTokens: promptTokens)
            return end
        } catch {
            meter.end(.failure(error), promptTokens: promptTokens)
            throw error
        }
    }

    private func complete(
        _ request: GenerateRequest, _ prompt: [UInt32], _ context: CallContext, _ number: UInt64,
        _ meter: inout CompletionMeter, admitted: () -> Void, emit: (GenerateItem) async throws(RPCError) -> Void
    ) async throws(RPCError) -> GenerateEnd {
        var message = TokensRequest(
            prompt: prompt, maxTokens: request.maxTokens, sampling: request.sampling,
            topLogprobs: request.logprobs ?? 0, stopTokenIDs: stopTokens(of: request),
            minimumTokens: request.minimumTokens)
        message.priority = context.priority
        message.wantsSigns = true
        let (bytes, limit) = (message.encoded().count + MessageLimits.textBytes, FrameLimits().metadata)
        guard bytes <= limit else {
            throw RPCError(
                .limitExceeded,
                "prompt (\(prompt.count) tokens) makes a message of \(bytes) bytes, the limit is \(limit)")
        }
        activeCount += 1
        defer { activeCount -= 1 }
        live.enter(.queued, number, promptTokens: prompt.count)
        let id = try router.submit(
            prompt, maximumTokens: Int(request.maxTokens), priority: Int(context.priority))
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
            (message.prefill, message.replay) = (route.prefill, progress.ids)
            let failure = try await run(
                message, context, id, route, until: deadline, number, &progress, &meter, emit: emit)
            guard let failure, !progress.isComplete(message) else {
                return try await finish(&progress, message, emit: emit)
            }
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
        let phase: FaultTable.Phase = router.now >= deadline ? .timeUp : progress.ids.isEmpty ? .prompt : .tokens
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
        _ message: TokensRequest, _ context: CallContext, _ id: UInt64, _ route: InstanceRouter.Route,
        until deadline: UInt64, _ number: UInt64, _ progress: inout CompletionProgress,
        _ meter: inout CompletionMeter, emit: (GenerateItem) async throws(RPCError) -> Void
    ) async throws(RPCError) -> RPCError? {
        let stream: RPCStream
        do throws(RPCError) { stream = try await open(message, context, route, until: deadline, number) } catch {
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
            let token: TokensItem
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
            try await emit(progress.take(token, stopTokenIDs: message.stopTokenIDs))
            meter.delivered(since: arrival)
            if progress.end != nil { return nil }
        }
        do throws(RPCError) {
            progress.end = try decode { () throws(WireError) in
                try GenerateEnd(decoding: stream.final?.metadata ?? [])
            }.reason
            return nil
        } catch {
            return error
        }
    }

    private func open(
        _ message: TokensRequest, _ context: CallContext, _ route: InstanceRouter.Route, until deadline: UInt64,
        _ number: UInt64
    ) async throws(RPCError) -> RPCStream {
        let now = router.now
        guard now < deadline else { throw RPCError(.deadlineExceeded, "the request's time is over") }
        // An instance that is not there must not hold a request that another could take.
        try await route.client.waitReady(timeoutMicroseconds: min(Self.connectMicroseconds, deadline - now))
        live.enter(.prefill, number)
        return try await route.client.stream(
            .generateTokens, RPCPayload(metadata: message.encoded()), timeoutMicroseconds: deadline - now,
            trace: context.trace)
    }

    private func finish(
        _ progress: inout CompletionProgress, _ message: TokensRequest,
        emit: (GenerateItem) async throws(RPCError) -> Void
    ) async throws(RPCError) -> GenerateEnd {
        let tail = progress.flush()
        if !tail.isEmpty { try await emit(GenerateItem(text: tail, tokens: [])) }
        let stops = progress.ids.last.map(message.stopTokenIDs.contains) ?? false
        return GenerateEnd(
            reason: progress.end ?? (stops ? .stop : .length), promptTokens: UInt32(message.prompt.count),
            completionTokens: UInt32(progress.ids.count))
    }

    private func decode<Value>(_ body: () throws(WireError) -> Value) throws(RPCError) -> Value {
        do throws(WireError) { return try body() } catch {
            throw RPCError(.internal, "attention answered with what cannot be read: \(error)")
        }
    }
}
