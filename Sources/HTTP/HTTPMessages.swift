import EventLoop
import JSON

/// The bounds of an HTTP server. Bytes and microseconds.
public struct HTTPLimits: Sendable, Equatable {
    /// Request line and headers of one request; beyond it 431.
    public var headerBytes = 32768
    /// Body of one request, decoded; beyond it 413.
    public var bodyBytes = 8 << 20
    /// Bodies of all requests at hand; beyond it 503.
    public var totalBodyBytes = 256 << 20
    /// Open connections; beyond it 503.
    public var connections = 4096
    /// From the first byte of a request to the end of its headers; beyond it 408.
    public var headerMicroseconds: UInt64 = 10_000_000
    /// From the end of the headers to the end of the body; beyond it 408.
    public var bodyMicroseconds: UInt64 = 60_000_000
    /// Silence between requests, which responses announce; beyond it the connection is closed. Longer than that of the
    /// proxies in use, so that none sends a request over a connection that is being closed.
    public var idleMicroseconds: UInt64 = 120_000_000
    /// Response bytes queued before a writer waits.
    public var pendingWriteBytes = 1 << 20
    /// How long a writer waits for its client to take what is queued, and a client may take nothing of what is.
    public var slowClientMicroseconds: UInt64 = 10_000_000

    /// The defaults.
    public init() {}
}

/// What the connections of a server share. Confined to its loop.
final class HTTPLoad {
    /// Bytes of the bodies of requests that are not done.
    var bodyBytes = 0
    /// Handlers that have not returned.
    var handlers = 0
    /// The time of day, for responses.
    var date = HTTPDate()
}

/// One request, complete with its body.
public struct HTTPRequest: Sendable {
    /// Upper-case method, such as `POST`.
    public let method: String
    /// Target without the query, not percent-decoded.
    public let path: String
    /// What follows `?` in the target, or nothing.
    public let query: String
    /// Headers in the order received.
    public let headers: [(name: String, value: String)]
    /// Decoded body.
    public let body: [UInt8]

    /// A request of its parts.
    public init(
        method: String, path: String, query: String = "", headers: [(name: String, value: String)] = [],
        body: [UInt8] = []
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
    }

    /// The first value of the header `name`, in any case.
    public func header(_ name: String) -> String? {
        let wanted = name.lowercased()
        return headers.first { $0.name.lowercased() == wanted }?.value
    }
}

/// Why a response could not be written.
public enum HTTPError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The client closed the connection, or the response was over.
    case disconnected
    /// The client did not take what was queued within `slowClientMicroseconds`.
    case slowClient

    /// One sentence.
    public var description: String {
        switch self {
        case .disconnected: "The client is gone."
        case .slowClient: "The client takes its response too slowly."
        }
    }
}

/// Answers requests.
public protocol HTTPHandler: AnyObject, Sendable {
    /// Answers `request` by `response`; runs on the server's loop, in a task cancelled when the client disconnects.
    func handle(_ request: HTTPRequest, _ response: HTTPResponse) async
}

/// Reason phrases and the error body.
enum HTTPText {
    static func reason(_ status: Int) -> String {
        let phrases = [
            200: "OK", 202: "Accepted", 204: "No Content", 304: "Not Modified", 400: "Bad Request",
            401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
            413: "Content Too Large", 415: "Unsupported Media Type", 422: "Unprocessable Content",
            429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
            501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
        ]
        return phrases[status] ?? "Status"
    }

    /// `{"error":{…}}` with `message` and `type` escaped.
    static func errorBody(type: String, message: String) -> [UInt8] {
        Array(
            "{\"error\":{\"message\":\(JSONText.quoted(message)),\"type\":\(JSONText.quoted(type)),\"param\":null,\"code\":null}}"
                .utf8)
    }

    /// The head of a response; control characters cannot leave a header.
    ///
    /// - date: the line of that header, whole.
    static func head(status: Int, date: String, headers: [(String, String)]) -> [UInt8] {
        var text = "HTTP/1.1 \(status) \(reason(status))\r\n"
        text += date
        for (name, value) in headers { text += "\(plain(name)): \(plain(value))\r\n" }
        return Array((text + "\r\n").utf8)
    }

    /// The interim response after which a client waits for the real one.
    static let goOn = Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)

    static func plain(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.filter { $0.value >= 32 && $0.value != 127 }))
    }
}
