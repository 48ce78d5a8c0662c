#!/usr/bin/perl
# HTTP::Daemon with a forked process for each connection. Prints its port.
use strict;
use warnings;
use HTTP::Daemon;
use HTTP::Response;

$SIG{CHLD} = 'IGNORE';
$| = 1;
my $daemon = HTTP::Daemon->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 512, ReuseAddr => 1) or die $!;
print $daemon->sockport, "\n";
while (1) {
    my $connection = $daemon->accept or next;
    my $child = fork;
    die $! unless defined $child;
    if ($child) { close $connection; next; }
    open my $file, '<', '/proc/self/comm' or die $!;
    chomp(my $name = <$file>);
    while (my $request = $connection->get_request) {
        my ($number, $size) = $request->uri->path =~ m{/(\d+)/(\d+)$};
        my $body = substr("$number." x ($size / (length($number) + 1) + 1), 0, $size);
        $connection->send_response(HTTP::Response->new(
            200, 'OK', ['Content-Type' => 'text/plain', 'Content-Length' => $size, 'X-Process' => "$$ $name"], $body));
    }
    exit 0;
}
