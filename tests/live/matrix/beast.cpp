// A client made with Boost.Beast: `beast PORT`. Reads lines `NUMBER METHOD PATH LENGTH` and makes these requests, 15 on
// a connection, four connections at a time. A line for each answer: NUMBER OWN-ADDRESS STATUS LENGTH right|wrong PID
// NAME (the last two from X-Process).
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <iostream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace http = boost::beast::http;
using tcp = boost::asio::ip::tcp;

struct Call {
    std::string number, method, path;
    std::size_t length;
};

static std::string text(const std::string &number, std::size_t size)
{
    std::string body;
    while (body.size() < size)
        body += number + ".";
    return body.substr(0, size);
}

static std::string converse(unsigned short port, const Call *first, const Call *end)
{
    std::ostringstream lines;
    boost::asio::io_context context;
    tcp::socket socket(context);
    socket.connect({boost::asio::ip::address_v4::loopback(), port});
    socket.set_option(tcp::no_delay(true));
    boost::beast::flat_buffer buffer;
    for (const Call *call = first; call != end; ++call) {
        http::request<http::string_body> request(http::string_to_verb(call->method), call->path, 11);
        request.set(http::field::host, "h");
        if (call->length) {
            request.set(http::field::content_type, "text/plain");
            request.body() = text(call->number, call->length);
            request.prepare_payload();
        }
        http::write(socket, request);
        http::response_parser<http::string_body> parser;
        parser.body_limit(1 << 24);
        http::read(socket, buffer, parser);
        const auto &response = parser.get();
        std::size_t size = std::stoul(call->path.substr(call->path.rfind('/') + 1));
        lines << call->number << ' ' << socket.local_endpoint() << ' ' << response.result_int() << ' '
              << response.body().size() << (response.body() == text(call->number, size) ? " right " : " wrong ")
              << response["X-Process"] << '\n';
    }
    return lines.str();
}

int main(int, char **arguments)
{
    const unsigned short port = std::stoi(arguments[1]);
    std::vector<Call> calls;
    Call call;
    while (std::cin >> call.number >> call.method >> call.path >> call.length)
        calls.push_back(call);
    std::mutex mutex;
    std::size_t next = 0;
    auto work = [&] {
        for (;;) {
            std::size_t from, to;
            {
                std::lock_guard<std::mutex> guard(mutex);
                from = next;
                next = to = std::min(next + 15, calls.size());
            }
            if (from == to)
                return;
            std::string lines = converse(port, calls.data() + from, calls.data() + to);
            std::lock_guard<std::mutex> guard(mutex);
            std::cout << lines;
        }
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back(work);
    for (auto &thread : threads)
        thread.join();
}
