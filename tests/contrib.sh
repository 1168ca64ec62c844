#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What contrib's commands do when something goes wrong, with stand-ins for make, apt-get and the lab: a test that did not run is no success, and whoever is ended
# leaves nothing behind.
here=$(cd "$(dirname -- "$0")" && pwd) || exit 99
top=$(cd "$here/.." && pwd)
# shellcheck source=tests/tap.sh
. "$here/tap.sh"
work=$(mktemp -d) || { echo "Bail out! mktemp"; exit 1; }
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/tree/contrib/lab.d" "$work/play" "$work/apt/sources.list.d" "$work/apt/mirrors"
export PATH=$work/bin:$PATH
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

program() { cat >"$1" && chmod 755 "$1"; } # program FILE: with what is on its standard input
told() { grep -Eqs -- "$1" "$work/out" "$work/err"; }
not() { ! "$@"; }
alive() { [ -n "$(ps -o stat= -p "$1" | grep -v '^Z')" ]; } # alive PID
none_of() { not pgrep -r D,R,S,T -g "$1"; } # none_of GROUP
within() # within SECONDS COMMAND...: until it succeeds
{
	local end=$((SECONDS + $1 + 1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}
printf '#!/bin/sh\necho 0\n' | program "$work/bin/id"

# contrib/test, in a tree whose make plays what is in play/GROUP.
cp "$top/contrib/test" "$work/tree/contrib/test"
echo 'build_packages="" lab_packages="" test_packages=""; lab_install_packages() { :; }' >"$work/tree/contrib/lab.d/packages"
printf '#!/bin/sh\necho "$*" >>"%s/lab.log"\n' "$work" | program "$work/tree/contrib/lab"
program "$work/tree/configure" <<-'END'
	#!/bin/sh
	printf '#!/bin/sh\necho "%s"\n' "$*" >config.status && chmod 755 config.status && cp "$(dirname "$0")/Makefile.in" Makefile && mkdir -p tests
END
cat >"$work/tree/Makefile.in" <<-'END'
	all: object
	object: ; ./config.status --config >object
	clean: ; rm -f object
	check:
	list-%: ; @sed -n 's/^# tests: //p' $(PLAY)/$*
	check-%: ; @sh $(PLAY)/$*
END
export PLAY=$work/play
# passes GROUP TEST...: each with one check
passes()
{
	local group=$1 test
	shift
	{
		echo "# tests: $*"
		for test; do echo "echo 'PASS: $test 1 - x'; echo ':test-result: PASS 1 - x' >${test%.sh}.trs"; done
	} >"$PLAY/$group"
}
well() { passes short tests/a tests/b && passes lab tests/c.sh && passes long tests/d.sh && passes full tests/e.sh; }
run_test() { "$work/tree/contrib/test" "$@" >"$work/out" 2>"$work/err"; }
# ends_with STATUS TEXT [OPTION...]: contrib/test, its exit status and its last line
ends_with()
{
	local want=$1 text=$2
	shift 2
	run_test "$@"
	[ $? -eq "$want" ] && [ "$(tail -n 1 "$work/out")" = "$text" ]
}

well
check "all tests pass" ends_with 0 "4 passed, 0 failed"
check "without clusters" ends_with 0 "3 passed, 0 failed" --quick
check "with the long ones" ends_with 0 "5 passed, 0 failed" --full
for group in short lab long full; do
	well
	tests=$(sed -n 's/^# tests: //p' "$PLAY/$group")
	printf '# tests: %s\nexit 2\n' "$tests" >"$PLAY/$group"
	check "$group: make ended before any test: each of them has failed, and a result of an earlier run is none" \
		ends_with 1 "$((5 - $(wc -w <<<"$tests"))) passed, $(wc -w <<<"$tests") failed" --full
	check "$group: they are named" told "ERROR: ${tests##* } - no result; make check-$group ended with 2"
done
well
printf '# tests: tests/d.sh\nkill -KILL 0\n' >"$PLAY/long"
check "killed with all around it" ends_with 1 "3 passed, 1 failed"
well
echo "echo 'FAIL: tests/b 2 - y'; echo ':test-result: FAIL 2 - y' >>tests/b.trs; exit 2" >>"$PLAY/short"
check "a test that fails is counted once" ends_with 1 "4 passed, 1 failed"
well
echo "exit 2" >>"$PLAY/lab"
check "make failed, and no test did" ends_with 1 "4 passed, 1 failed"
well
: >"$PLAY/lab"
check "no tests in a group" ends_with 1 "3 passed, 1 failed"
well
echo "echo '# left out: something' >tests/d.log" >>"$PLAY/long"
check "what a test leaves out is no failure" ends_with 0 "4 passed, 0 failed"
check "and is told" told '^ +# left out: something'

well
check "sanitizers: well" ends_with 0 "4 passed, 0 failed" --sanitizers address
check "sanitizers: a directory of their own" grep -qs with-sanitizers=address "$work/tree/build-test-address/object"
check "without: as it was" not grep -q with-sanitizers "$work/tree/build-test/object"
check "sanitizers, where another build was" ends_with 0 "4 passed, 0 failed" --build "$work/tree/build-test" --sanitizers undefined
check "all is built anew" grep -q with-sanitizers=undefined "$work/tree/build-test/object"
echo kept >>"$work/tree/build-test/object"
check "the same again" ends_with 0 "4 passed, 0 failed" --build "$work/tree/build-test" --sanitizers undefined
check "nothing is built anew" grep -q kept "$work/tree/build-test/object"
: >"$work/tree/config.status"
check "a source tree that is configured itself" ends_with 1 "0 passed, 1 failed"
check "what to do is told" told 'make -C .*/tree distclean'
rm "$work/tree/config.status"

: >"$work/lab.log"
printf '#!/bin/sh\necho "$*" >>"%s/lab.log"\n[ "$3" != up ] || exit 1\n' "$work" | program "$work/tree/contrib/lab"
check "the lab does not come up" ends_with 1 "0 passed, 1 failed"
check "it is taken down" [ "$(tail -n 1 "$work/lab.log")" = "--prefix khroot down" ]

# sleeper NAME: a test that waits, and what it leaves should it be ended itself
sleeper() { printf 'sleep 1000 &\necho $! >%s/%s.pid\nwait\n' "$work" "$1"; }
all_sleep() { local name; for name; do [ -s "$work/$name.pid" ] || return 1; done; } # all_sleep NAME...
ended_by() # ended_by SIGNAL STATUS NAME...: contrib/test alone gets it
{
	local signal=$1 want=$2 pid status name
	shift 2
	rm -f "$work"/*.pid
	env --default-signal=INT,TERM,HUP "$work/tree/contrib/test" >"$work/out" 2>"$work/err" & # they may be ignored here, as by nohup
	pid=$!
	within 120 all_sleep "$@" || return
	kill -s "$signal" $pid
	wait $pid
	status=$?
	[ $status -eq "$want" ] && for name; do ! alive "$(cat "$work/$name.pid")" || return 1; done
}
printf '#!/bin/sh\necho "$*" >>"%s/lab.log"\n' "$work" | program "$work/tree/contrib/lab"
well
sleeper short >>"$PLAY/short"
sleeper long >>"$PLAY/long"
check "SIGTERM: no test goes on" ended_by TERM 143 short long
check "SIGHUP: no test goes on" ended_by HUP 129 short long
{ printf '#!/bin/sh\necho "$*" >>"%s/lab.log"\n[ "$3" = up ] || exit 0\n' "$work"; sleeper up; } | program "$work/tree/contrib/lab"
check "SIGTERM while the lab comes up" ended_by TERM 143 up
check "it is taken down, too" [ "$(tail -n 1 "$work/lab.log")" = "--prefix khroot down" ]

# What installs packages.
printf '#!/bin/sh\n[ ! -e "%s/all" ] || echo installed\n' "$work" | program "$work/bin/dpkg-query"
printf '#!/bin/sh\ncat "%s/policy" >"%s/seen" 2>/dev/null\n[ ! -e "%s/slow" ] || { echo $$ >"%s/apt.pid"; exec sleep 1000; }\n' "$work" "$work" "$work" "$work" | program "$work/bin/apt-get"
printf '#!/bin/sh\n' | program "$work/bin/systemctl"
install_it() { bash -c '. "$1/contrib/lab.d/packages"; lab_policy=$2/policy lab_policy_lock=$2/lock; lab_install_packages x' sh "$top" "$work" >"$work/out" 2>"$work/err"; }
interrupted()
{
	local pid
	rm -f "$work/apt.pid"
	env --default-signal=INT,TERM,HUP setsid bash -c '. "$1/contrib/lab.d/packages"; lab_policy=$2/policy lab_policy_lock=$2/lock; lab_install_packages x' sh "$top" "$work" >"$work/out" 2>"$work/err" &
	pid=$!
	within 120 [ -s "$work/apt.pid" ] || return 1
	kill -s "$1" -- -$pid
	wait $pid 2>/dev/null
	within 120 none_of $pid
}
check "packages: installed" install_it
check "no service is started meanwhile" grep -q '^exit 101$' "$work/seen"
check "later they are" [ ! -e "$work/policy" ]
: >"$work/slow"
check "packages: ended meanwhile" interrupted TERM
check "services are started later" [ ! -e "$work/policy" ]
check "packages: killed meanwhile" interrupted KILL
check "a policy is left" [ -e "$work/policy" ]
rm "$work/slow"
: >"$work/all"
check "packages: all are there" install_it
check "what was left is no more" [ ! -e "$work/policy" ]
rm "$work/all"
printf '#!/bin/sh\nexit 104\n' | program "$work/policy"
check "packages: a policy of the host's" install_it
check "it is heeded" grep -q '^exit 104$' "$work/seen"
check "and stays" grep -q '^exit 104$' "$work/policy"

# Where the nodes' packages come from.
mirror() { python3 -B -c 'import sys; sys.path.insert(0, sys.argv[1]); import labroot; print(labroot.mirror(sys.argv[2]))' "$top/contrib/lab.d" "$work/apt" 2>"$work/err"; }
source_is() { [ "$(mirror | tee "$work/out")" = "$1" ]; }
sources() { printf 'Types: deb deb-src\nURIs: %s\nSuites: bookworm bookworm-updates\nComponents: main\n' "$*" >"$work/apt/sources.list.d/debian.sources"; }
check "no source" source_is http://deb.debian.org/debian
sources http://mirror.example/debian
check "an address" source_is http://mirror.example/debian
printf '# mirrors\n\nhttps://first.example/debian\tpriority:1\nhttp://second.example/debian\n' >"$work/apt/mirrors/debian.list"
for slashes in "" //; do
	sources "mirror+file:$slashes$work/apt/mirrors/debian.list"
	check "a list of mirrors ($slashes)" source_is https://first.example/debian
done
sources mirror+file:/nowhere/debian.list
check "a list that is not there" source_is http://deb.debian.org/debian
sources tor+http://x.onion/debian cdrom:x file:/srv/debian
check "what debootstrap does not take" source_is file:/srv/debian
sources mirror://x/debian
echo 'deb [arch=amd64] http://other.example/debian bookworm main' >"$work/apt/sources.list.d/z.list"
check "another source" source_is http://other.example/debian

# The demo.
mkdir -p "$work/demo/lab.d"
cp "$top/contrib/lab.d/demo.py" "$work/demo/lab.d/"
{ printf '#!/bin/sh\necho "$*" >>"%s/demo.log"\n[ "$3" = up ] || exit 0\n' "$work"; sleeper up; } | program "$work/demo/lab"
demo_ended_by() # demo_ended_by SIGNAL STATUS
{
	local pid status
	rm -f "$work/up.pid" "$work/demo.log"
	env --default-signal=INT,TERM,HUP python3 -B "$work/demo/lab.d/demo.py" >"$work/out" 2>"$work/err" &
	pid=$!
	within 120 [ -s "$work/up.pid" ] || return 1
	kill -s "$1" $pid
	wait $pid
	status=$?
	kill "$(cat "$work/up.pid")" # its lab's, which no kernel ends here
	[ $status -eq "$2" ] && [ "$(tail -n 1 "$work/demo.log")" = "--prefix khd down" ]
}
check "demo: SIGINT, and the cluster goes" demo_ended_by INT 130
check "demo: SIGTERM, and the cluster goes" demo_ended_by TERM 143
check "demo: SIGHUP, and the cluster goes" demo_ended_by HUP 129

echo "1..$count"
[ $failures -eq 0 ]
