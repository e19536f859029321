#!/usr/bin/env bash
# Completions with curl: examples/completions.sh [URL]
set -euo pipefail
url=${1:-http://127.0.0.1:8000}

post() {
    curl --silent --show-error --fail --no-buffer "$url$1" -H 'Content-Type: application/json' -d "$2"
    echo
}

echo "# one answer"
post /v1/completions '{"prompt": "It is a truth", "max_tokens": 16, "temperature": 0}'

echo "# as it is generated: one event a token, then [DONE]"
post /v1/completions '{"prompt": "It is a truth", "max_tokens": 8, "seed": 7, "stream": true}'

echo "# a conversation"
post /v1/chat/completions '{"messages": [{"role": "user", "content": "Who wrote Emma?"}], "max_tokens": 32}'

echo "# token ids, and the likeliest alternatives of each token"
post /v1/completions '{"prompt": [1, 2, 3], "max_tokens": 4, "logprobs": 2}'
