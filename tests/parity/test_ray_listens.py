"""What a local Ray opens to the network."""

import contextlib

import psutil


def test_no_process_of_a_local_ray_listens_beyond_this_machine(ray_local):
    import ray

    @ray.remote
    def work():
        return ray.util.get_node_ip_address()

    assert ray.get(work.remote()) == "127.0.0.1"
    heard = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended by now listens to nothing
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    heard.add((connection.laddr.ip.removeprefix("::ffff:"), process.name()))
    assert {"gcs_server", "raylet"} <= {name for _, name in heard}
    assert {address for address, _ in heard} <= {"127.0.0.1", "::1"}, heard
