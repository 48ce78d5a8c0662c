#!/usr/bin/perl
# Answers the requests of one connection, which is its standard input and output: the way of inetd.
# As a CGI program (GATEWAY_INTERFACE is set) it answers one, and it is its parent that speaks to the client.
use strict;
use warnings;

sub name { open my $file, '<', "/proc/$_[0]/comm" or die $!; chomp(my $name = <$file>); return $name }

sub output {
    my ($data) = @_;
    while (length $data) {
        my $sent = syswrite STDOUT, $data;
        exit 1 unless defined $sent;
        substr($data, 0, $sent, '');
    }
}

sub respond {
    my ($start, $path, $pid) = @_;
    my ($number, $size) = $path =~ m{/(\d+)/(\d+)$} or die "path $path";
    my $body = substr("$number." x ($size / (length($number) + 1) + 1), 0, $size);
    output("${start}Content-Type: text/plain\r\nContent-Length: $size\r\nX-Process: $pid " . name($pid) . "\r\n\r\n$body");
}

if ($ENV{GATEWAY_INTERFACE}) {
    my $left = $ENV{CONTENT_LENGTH} || 0;
    while ($left > 0) { my $got = sysread STDIN, my $data, $left; last unless $got; $left -= $got; }
    respond('', $ENV{PATH_INFO}, getppid);
    exit 0;
}
my $data = '';
while (1) {
    while ($data !~ /\r\n\r\n/) { sysread(STDIN, $data, 65536, length $data) or exit 0; }
    my ($head, $rest) = split /\r\n\r\n/, $data, 2;
    my ($length) = $head =~ /^content-length: *(\d+)/im;
    $length ||= 0;
    while (length($rest) < $length) { sysread(STDIN, $rest, 65536, length $rest) or exit 0; }
    $data = substr $rest, $length;
    my ($path) = $head =~ /^\S+ (\S+)/;
    respond("HTTP/1.1 200 OK\r\n", $path, $$);
}
