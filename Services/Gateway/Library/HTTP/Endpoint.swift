/// Everything the HTTP face answers. `openapi.json` describes the same list.
package enum Endpoint: String, CaseIterable, Sendable {
    case health = "/health"
    case ready = "/ready"
    case metrics = "/metrics"
    case openapi = "/openapi.json"
    case models = "/v1/models"
    case model = "/v1/models/{model}"
    case completions = "/v1/completions"
    case chat = "/v1/chat/completions"
    case generate = "/generate"
    case tokenize = "/tokenize"
    case detokenize = "/detokenize"
    case serverInfo = "/get_server_info"
    case serverInfoShort = "/server_info"
    case flushCache = "/flush_cache"

    /// The endpoint of a request's path.
    package init?(path: String) {
        let prefix = "/v1/models/"
        if let exact = Endpoint(rawValue: path), exact != .model {
            self = exact
        } else if path.hasPrefix(prefix), path.utf8.count > prefix.utf8.count {
            self = .model
        } else {
            return nil
        }
    }

    /// Methods it answers, HEAD aside, which it does wherever it answers GET.
    package var methods: [String] {
        switch self {
        case .completions, .chat, .generate, .tokenize, .detokenize: ["POST"]
        case .flushCache: ["GET", "POST"]
        default: ["GET"]
        }
    }

    /// Whether it answers a method.
    func answers(_ method: String) -> Bool {
        methods.contains(method) || (method == "HEAD" && methods.contains("GET"))
    }

    /// Whether a key is needed where keys are in use.
    var needsKey: Bool {
        switch self {
        case .health, .ready, .metrics, .openapi: false
        default: true
        }
    }

    /// Whether it uses the model, and is refused while the gateway drains.
    var isWork: Bool {
        switch self {
        case .completions, .chat, .generate: true
        default: false
        }
    }
}
