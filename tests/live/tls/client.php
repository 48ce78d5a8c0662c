<?php
// `client.php PORT LOG` makes the connections that standard input names, one after another, with the extension curl.
$bed = getenv("TLS_BED");
$letters = file_get_contents("$bed/pool");
[, $port, $name] = $argv;
$log = fopen($name, "a");
stream_set_write_buffer($log, 0);

function content(int $number, int $size): string
{
    global $letters;
    $start = ($number * 4099 + 500009) % 1000000;
    return substr("$number." . substr($letters, $start, $size), 0, $size);
}

function exchange(CurlHandle $curl, string $reading, string $word): void
{
    global $port, $log;
    [$method, $path, $bytes] = explode(",", $word);
    [$number, $size] = array_map("intval", array_slice(explode("/", $path), -2));
    $hash = hash_init("sha256");
    $have = 0;
    $options = [
        CURLOPT_URL => "https://127.0.0.1:$port$path",
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_WRITEFUNCTION => function ($curl, string $piece) use ($hash, &$have, $reading, $size): int {
            if ($reading === "stalled" && $have === 0 && $size > 1 << 20) {
                usleep(400000);
            }
            hash_update($hash, $piece);
            $have += strlen($piece);
            return $reading === "abandoned" && $have > 100000 ? 0 : strlen($piece);
        },
        CURLOPT_BUFFERSIZE => $reading === "partial" ? 1024 : 16384,
    ];
    if ($bytes !== "0") {
        $options[CURLOPT_POSTFIELDS] = content($number, (int) $bytes);
        $options[CURLOPT_HTTPHEADER] = ["Content-Type: text/plain"];
    }
    curl_setopt_array($curl, $options);
    if (!curl_exec($curl) && $reading !== "abandoned") {
        fwrite(STDERR, curl_error($curl) . " $word\n");
        exit(1);
    }
    fwrite($log, json_encode([
        "number" => $number,
        "status" => curl_getinfo($curl, CURLINFO_RESPONSE_CODE),
        "bytes" => $have,
        "sha256" => hash_final($hash),
        "local" => curl_getinfo($curl, CURLINFO_LOCAL_IP) . ":" . curl_getinfo($curl, CURLINFO_LOCAL_PORT),
    ], JSON_UNESCAPED_SLASHES) . "\n");
}

while (($line = fgets(STDIN)) !== false) {
    $words = explode(" ", trim($line));
    $reading = array_shift($words);
    $curl = curl_init();
    $fixed = [
        CURLOPT_CAINFO => "$bed/ca.pem",
        CURLOPT_SSLCERT => "$bed/client.pem",
        CURLOPT_SSLKEY => "$bed/client.key",
        CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_1_1,
        CURLOPT_NOPROXY => "*",
    ];
    foreach ($words as $place => $word) {
        curl_reset($curl); // keeps its connection
        curl_setopt_array($curl, $fixed);
        exchange($curl, $reading === "abandoned" && $place < count($words) - 1 ? "whole" : $reading, $word);
    }
    curl_close($curl);
}
