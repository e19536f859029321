import EventLoop
import HTTP
import Testing

/// Requests that a proxy in front might read otherwise than this server are refused and their connection is closed, so that
/// nobody can hide one request in another.
@Suite(.timeLimit(.minutes(1)))
struct AmbiguousRequestTests {
    private static let get = "GET / HTTP/1.1\r\nHost: x\r\n"
    private static let post = "POST / HTTP/1.1\r\nHost: x\r\n"
    private static let chunked = post + "Transfer-Encoding: chunked\r\n\r\n"

    private func answer(_ request: String, seed: UInt64 = 7) throws -> String {
        let box = Box()
        try withMemoryServer(seed: seed) { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.stream.write(Array(request.utf8))
            await loop.pass(seconds: 1)
            box.text = client.text
            box.isClosed = client.isClosed
            client.stream.abort()
        }
        return (box.isClosed ? "closed " : "open ") + box.text
    }

    private final class Box: @unchecked Sendable {
        var text = ""
        var isClosed = false
    }

    @Test(arguments: [
        post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        post + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", post + "Content-Length: 2, 2\r\n\r\nab",
        post + "Content-Length: +2\r\n\r\nab", post + "Content-Length: 0x2\r\n\r\nab",
        post + "Content-Length: -1\r\n\r\nab", post + "Content-Length: 18446744073709551618\r\n\r\nab",
        post + "Content-Length: \r\n\r\nab", post + "Content-Length : 2\r\n\r\nab",
        post + "Transfer-Encoding: xchunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        post + "Transfer-Encoding: chunked, identity\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        post + "Transfer-Encoding: identity, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        post + "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        post + "Transfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab",
        post + "Transfer-Encoding:\r\n chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        chunked + "2;a=b\nab\r\n0\r\n\r\n", chunked + "0x2\r\nab\r\n0\r\n\r\n",
        chunked + "ffffffffffffffff2\r\nab\r\n0\r\n\r\n", chunked + " 2\r\nab\r\n0\r\n\r\n",
        chunked + "2 \r\nab\r\n0\r\n\r\n", chunked + "2\r\nabXX0\r\n\r\n", chunked + "2\nab\n0\n\n",
        chunked + "-2\r\nab\r\n0\r\n\r\n", chunked + "\r\nab\r\n0\r\n\r\n", chunked + "0\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\n", get + "X: a\rY: b\r\n\r\n", get + "X: a\r\n b\r\n\r\n", get + "X Y: a\r\n\r\n",
        get + "X\t: a\r\n\r\n", get + "foo\r\n\r\n", get + ": a\r\n\r\n", get + "X: a\0b\r\n\r\n",
        get + "X\0: b\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    ])
    func whatCanBeReadInTwoWaysIsRefused(request: String) throws {
        let text = try answer(request)
        #expect(text.hasPrefix("closed HTTP/1.1 400 "), "\(text.prefix(60))")
        #expect(text.components(separatedBy: "HTTP/1.1 ").count == 2, "one answer")
    }

    /// The body that each of these well-formed requests has.
    @Test(arguments: [
        (get + "\r\n", "[]"), ("\r\n\r\n" + get + "\r\n", "[]"), (post + "Content-Length: 2\r\n\r\nab", "[]"),
        (post + "Content-Length:\t2 \r\n\r\nab", "[]"), (chunked + "2\r\nab\r\n0\r\n\r\n", "[]"),
        (chunked + "02;a=\"b\"\r\nab\r\n1\r\nc\r\n000\r\nX-T: y\r\n\r\n", "[]"),
        (chunked + "A\r\n\r\n0123456\n\r\n0\r\n\r\n", "[]"),
        (post + "transfer-encoding:  Chunked \r\n\r\n0\r\n\r\n", "[]"),
        (get + "X-Given: \u{E9}t\u{E9}\r\n\r\n", "[\u{E9}t\u{E9}]"),
        (get + "X-Given:\r\nX!#$%&'*+-.^_`|~9: a\r\n\r\n", "[]"),
    ])
    func whatIsWellFormedIsAnswered(request: String, body: String) throws {
        // Sent twice: what is left of the first would spoil the second. In pieces of any size, as the seed has it.
        for seed in 1...3 as ClosedRange<UInt64> {
            let parts = try answer(request + request, seed: seed).components(separatedBy: "HTTP/1.1 200 OK\r\n")
            #expect(parts.count == 3 && parts[0] == "open ", "seed \(seed): \(parts)")
            #expect(parts.dropFirst().allSatisfy { $0.hasSuffix("\r\n\r\n" + body) }, "seed \(seed): \(parts)")
        }
    }
}
