import HTTP
import Observability
import RPC

/// What the face reads from a request's headers.
package enum RequestHeaders {
    /// The client's `x-request-id` when it is 1 to 128 visible ASCII characters, else one of our own.
    static func id(_ request: HTTPRequest) -> String {
        if let given = request.header("x-request-id"), (1...128).contains(given.utf8.count),
            given.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
        {
            return given
        }
        return "req-" + randomID()
    }

    /// 16 random hexadecimal digits.
    static func randomID() -> String {
        let digits = String(UInt64.random(in: 0...UInt64.max), radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }

    /// How long the client waits (`x-request-timeout`, seconds).
    static func context(_ request: HTTPRequest) throws(APIError) -> CallContext {
        var context = CallContext()
        if let text = request.header("x-request-timeout") {
            guard let seconds = Double(text), (0.001...86_400).contains(seconds) else {
                throw .invalid("x-request-timeout", "must be a number of seconds from 0.001 to 86400")
            }
            context.timeoutMicroseconds = UInt64(seconds * 1e6)
        }
        return context
    }

    /// The trace the client's `traceparent` names, or a new one that is not recorded.
    static func trace(_ request: HTTPRequest) -> TraceContext {
        request.header("traceparent").flatMap { TraceContext(traceparent: $0) } ?? .random()
    }

    /// The body, which must not be compressed.
    static func body(_ request: HTTPRequest) throws(APIError) -> [UInt8] {
        if let encoding = request.header("content-encoding"), encoding.lowercased() != "identity" {
            throw APIError(
                415, type: "invalid_request_error", code: "unsupported_encoding", parameter: "content-encoding",
                message: "content-encoding \"\(encoding.prefix(64))\" is not supported")
        }
        return request.body
    }
}

/// Cross-origin requests, which browsers allow only when the answer says so.
enum CrossOrigin {
    private static func origin(_ request: HTTPRequest, _ allowed: Set<String>) -> String? {
        guard !allowed.isEmpty, let origin = request.header("origin") else { return nil }
        if allowed.contains("*") { return "*" }
        return allowed.contains(origin) ? origin : nil
    }

    /// Headers of every answer to a page of an allowed origin.
    static func headers(for request: HTTPRequest, allowed: Set<String>) -> [(String, String)] {
        guard !allowed.isEmpty else { return [] }
        let vary = [("Vary", "Origin")]
        guard let origin = origin(request, allowed) else { return vary }
        return vary + [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", "x-request-id, traceparent, retry-after"),
        ]
    }

    /// True when a browser asks whether a page of an allowed origin may send a request.
    static func isPreflight(_ request: HTTPRequest, allowed: Set<String>) -> Bool {
        request.method == "OPTIONS" && request.header("access-control-request-method") != nil
            && origin(request, allowed) != nil
    }

    /// What may be sent to an endpoint: the headers the browser asks for, as clients have many of their own, and none of
    /// them does more for a page than it does for others.
    static func preflightHeaders(_ endpoint: Endpoint, _ request: HTTPRequest) -> [(String, String)] {
        let asked = request.header("access-control-request-headers").flatMap(headerNames)
        let usual = "authorization, content-type, traceparent, x-request-id, x-request-timeout"
        var headers = [
            ("Access-Control-Allow-Methods", endpoint.methods.joined(separator: ", ")),
            ("Access-Control-Allow-Headers", asked ?? usual), ("Access-Control-Max-Age", "600"),
            ("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers"),
        ]
        // Pages of the internet that call a machine of the local network.
        if request.header("access-control-request-private-network") == "true" {
            headers.append(("Access-Control-Allow-Private-Network", "true"))
        }
        return headers
    }

    /// A list of header names, as it may be sent back; nil when it is none.
    private static func headerNames(_ list: String) -> String? {
        let names = list.split { $0 == "," || $0 == " " || $0 == "\t" }
        let isList = names.allSatisfy { name in
            name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"\"(),/:;<=>?@[\\]{}".utf8.contains($0) }
        }
        return isList && !names.isEmpty ? names.joined(separator: ", ") : nil
    }
}
