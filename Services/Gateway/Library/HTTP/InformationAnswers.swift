import Foundation
import HTTP
import JSON
import RPC
import ServiceSupport
import WireProtocol

/// The endpoints that answer without the model.
extension HTTPFace {
    func inform(_ endpoint: Endpoint, _ request: HTTPRequest, _ response: HTTPResponse) async throws(APIError) {
        switch endpoint {
        case .health: sendText(response, 200, "ok\n")
        case .ready:
            let reason = state.isDraining ? "the gateway is about to stop" : engine.outage
            sendText(response, reason == nil ? 200 : 503, reason.map { "not ready: \($0)\n" } ?? "ready\n")
        case .openapi: sendJSON(response, PackageResources.openapi_json)
        case .metrics:
            let text = ServiceMetrics.text(service: "gateway", await state.counters(), telemetry.metrics)
            response.send(status: 200, contentType: ServiceMetrics.contentType, body: Array(text.utf8))
        case .models: sendJSON(response, models())
        case .model: sendJSON(response, try model(request.path))
        case .tokenize, .detokenize:
            let body = try RequestHeaders.body(request)
            let json = try await Background.run(reading: body.count) { [self] () throws(APIError) in
                endpoint == .tokenize ? try tokenize(body) : try detokenize(body)
            }
            sendJSON(response, json)
        case .serverInfo, .serverInfoShort: sendJSON(response, await serverInfo())
        case .flushCache: sendText(response, 200, "Cache flushed (instances: \(await state.flush())).\n")
        case .completions, .chat, .generate:
            throw APIError(500, type: "server_error", message: "\(endpoint.rawValue) needs the model")
        }
    }

    private func sendText(_ response: HTTPResponse, _ status: Int, _ text: String) {
        response.send(status: status, contentType: "text/plain; charset=utf-8", body: Array(text.utf8))
    }

    private func sendJSON(_ response: HTTPResponse, _ json: [UInt8]) {
        response.send(status: 200, contentType: "application/json", body: json)
    }

    // MARK: Models

    private func models() -> [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.name("object")
        writer.value("list")
        writer.name("data")
        writer.beginArray()
        write(&writer)
        writer.endArray()
        writer.endObject()
        return writer.bytes
    }

    private func model(_ path: String) throws(APIError) -> [UInt8] {
        let name = path.dropFirst("/v1/models/".count)
        guard name.removingPercentEncoding == engine.modelName else {
            throw .unknownModel(String(name), engine.modelName)
        }
        var writer = JSONWriter()
        write(&writer)
        return writer.bytes
    }

    private func write(_ writer: inout JSONWriter) {
        writer.beginObject()
        writer.name("id")
        writer.value(engine.modelName)
        writer.name("object")
        writer.value("model")
        writer.name("created")
        writer.value(startSeconds)
        writer.name("owned_by")
        writer.value("ironling")
        writer.name("max_model_len")
        writer.value(engine.configuration.maximumPositions)
        writer.name("generation_defaults")
        engine.defaults.write(&writer)
        writer.endObject()
    }

    // MARK: Tokens

    private func tokenize(_ body: [UInt8]) throws(APIError) -> [UInt8] {
        let fields = try RequestFields(RequestFields.document(body))
        var counts = FieldCounts()
        try fields.check(.tokenize, &counts)
        let thinks = try CompletionJob.thinks(fields, &counts)
        let prompt: GenerateRequest.Prompt
        if fields["messages"] != nil {
            guard fields["prompt"] == nil else { throw fields.refusal("prompt", "and messages are both given") }
            prompt = .chat(try CompletionJob.messages(fields, &counts))
        } else {
            guard let text = try fields.text("prompt", limit: .max) else {
                throw fields.refusal("prompt", "is missing")
            }
            prompt = .text(text)
        }
        let model = try fields.text("model") ?? ""
        guard engine.serves(model) else { throw .unknownModel(model, engine.modelName) }
        let adds = try fields.flag("add_special_tokens", fallback: true)
        let tokens = try engine.tokens(of: prompt, thinking: thinks, addingSpecialTokens: adds)
        var writer = JSONWriter()
        writer.beginObject()
        writer.name("count")
        writer.value(tokens.count)
        writer.name("max_model_len")
        writer.value(engine.configuration.maximumPositions)
        writer.name("tokens")
        writer.value(tokens.lazy.map { Int($0) })
        writer.endObject()
        return writer.bytes
    }

    /// The text is called `prompt` by vLLM's clients and `text` by SGLang's.
    private func detokenize(_ body: [UInt8]) throws(APIError) -> [UInt8] {
        let fields = try RequestFields(RequestFields.document(body))
        var counts = FieldCounts()
        try fields.check(.detokenize, &counts)
        let model = try fields.text("model") ?? ""
        guard engine.serves(model) else { throw .unknownModel(model, engine.modelName) }
        guard let tokens = try fields.tokens("tokens", limit: MessageLimits.promptTokens) else {
            throw fields.refusal("tokens", "is missing")
        }
        if let id = tokens.first(where: { Int($0) >= engine.configuration.vocabularySize }) {
            throw fields.refusal(
                "tokens", "holds \(id), the vocabulary has \(engine.configuration.vocabularySize)")
        }
        guard engine.codec != nil else {
            throw APIError(400, type: "invalid_request_error", message: "this model has no tokenizer")
        }
        let text = engine.text(of: tokens, skipsSpecial: try fields.flag("skip_special_tokens", fallback: true))
        var writer = JSONWriter()
        writer.beginObject()
        writer.name("prompt")
        writer.value(text)
        writer.name("text")
        writer.value(text)
        writer.endObject()
        return writer.bytes
    }

    // MARK: Server

    private func serverInfo() async -> [UInt8] {
        let counters = await state.counters()
        var writer = JSONWriter()
        writer.beginObject()
        writer.name("served_model_name")
        writer.value(engine.modelName)
        writer.name("max_model_len")
        writer.value(engine.configuration.maximumPositions)
        writer.name("generation_defaults")
        engine.defaults.write(&writer)
        writer.name("mode")
        writer.value(engine.isEmulated ? "emulate" : "compute")
        writer.name("vocab_size")
        writer.value(engine.configuration.vocabularySize)
        writer.name("is_ready")
        writer.value(engine.isReady && !state.isDraining)
        writer.name("is_draining")
        writer.value(state.isDraining)
        writer.name("internal_states")
        writer.beginArray()
        writer.beginObject()
        for name in counters.keys.sorted() {
            writer.name(name)
            writer.value(Int(counters[name] ?? 0))
        }
        writer.endObject()
        writer.endArray()
        writer.endObject()
        return writer.bytes
    }
}
