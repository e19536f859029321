import JSON
import RPC
import Scheduling

/// A refusal or failure in the shape clients of OpenAI's interface expect.
package struct APIError: Error, Sendable, Equatable {
    /// HTTP status.
    package var status: Int
    /// OpenAI's `type`.
    package var type: String
    /// OpenAI's `code`, a word programs can compare.
    package var code: String?
    /// The field at fault.
    package var parameter: String?
    /// One sentence.
    package var message: String
    /// When to try again.
    package var retryAfterSeconds: Int?

    /// An error of its parts.
    package init(
        _ status: Int, type: String, code: String? = nil, parameter: String? = nil, message: String,
        retryAfterSeconds: Int? = nil
    ) {
        self.status = status
        self.type = type
        self.code = code
        self.parameter = parameter
        self.message = message
        self.retryAfterSeconds = retryAfterSeconds
    }

    /// `code` of a field that would change the answer.
    package static let unsupportedField = "unsupported_parameter"
    /// `code` of a field nobody knows.
    package static let unknownField = "unknown_parameter"

    /// A field that cannot be accepted; `reason` follows its name.
    package static func invalid(_ parameter: String, _ reason: String, code: String? = nil) -> APIError {
        APIError(
            400, type: "invalid_request_error", code: code, parameter: parameter, message: "\(parameter) \(reason)")
    }

    /// A model that is not served.
    package static func unknownModel(_ model: String, _ served: String) -> APIError {
        APIError(
            404, type: "invalid_request_error", code: "model_not_found", parameter: "model",
            message: "model \"\(model.prefix(128))\" is not served here; \"\(served)\" is")
    }

    /// What the engine answered.
    package init(_ error: RPCError) {
        let message = error.message
        switch error.code {
        case .invalidArgument: self.init(400, type: "invalid_request_error", message: message)
        case .limitExceeded:
            self.init(400, type: "invalid_request_error", code: "context_length_exceeded", message: message)
        case .notAccepted:
            self.init(
                429, type: "rate_limit_error", code: "rate_limit_exceeded", message: message, retryAfterSeconds: 1)
        case .unavailable, .cancelled:
            self.init(
                503, type: "server_error", code: "service_unavailable", message: message, retryAfterSeconds: 2)
        case .retryBudgetSpent:
            self.init(
                503, type: "server_error", code: "retry_budget_spent", message: message,
                retryAfterSeconds: Int(RetryBudget.windowMicroseconds / 1_000_000))
        case .deadlineExceeded: self.init(504, type: "server_error", code: "timeout", message: message)
        default: self.init(500, type: "server_error", message: message)
        }
    }

    /// `{"error": …}`.
    package var json: [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.name("error")
        writer.beginObject()
        writer.name("message")
        writer.value(message)
        writer.name("type")
        writer.value(type)
        writer.name("param")
        if let parameter { writer.value(parameter) } else { writer.null() }
        writer.name("code")
        if let code { writer.value(code) } else { writer.null() }
        writer.endObject()
        writer.endObject()
        return writer.bytes
    }
}
