"""Which functions of a call trace are messengers, and so are not to blame.

Patterns of names, `*` for any rest. Leading underscores do not count: `kmalloc*` covers `__kmalloc_noprof`.
"""

from __future__ import annotations

import re


def _names(patterns: str) -> re.Pattern[str]:
    lines = (line.partition("#")[0] for line in patterns.splitlines())
    words = " ".join(lines).split()
    return re.compile("_*(?:" + "|".join(re.escape(word).replace(r"\*", r"\w*") for word in words) + ")$")


_LOCKS = """
    lockdep_* lock_acquire* lock_release* lock_acquired lock_contended lock_is_held* lock_downgrade* validate_chain
    mark_lock* mark_held_locks mark_usage check_noncircular check_prev* check_deadlock check_irq_usage check_usage*
    check_path check_wait_context check_chain_key check_unlock print_circular_bug* print_deadlock_bug
    print_usage_bug* print_irq_inversion_bug* print_bad_irq_dependency print_unlock_imbalance_bug*
    print_lock_invalid_wait_context print_freed_lock_bug register_lock_class assign_lock_key look_up_lock_class
    reacquire_held_locks rcu_lockdep* debug_check_no_locks* debug_locks_off debug_lockdep_rcu_enabled trace_hardirqs_*
    trace_softirqs_* might_sleep* might_resched might_fault* cant_sleep cant_migrate
    schedule_bug raw_spin_* raw_read_* raw_write_* do_raw_* spin_bug spin_dump
    rwlock_bug debug_spin_* queued_* native_queued_* pv_queued_* mutex_lock* mutex_unlock* mutex_trylock* rt_mutex_*
    rt_spin_* rt_read_* rt_write_* ww_mutex_* down down_* downgrade_* up up_* spin_lock* spin_unlock* read_lock*
    read_unlock* local_lock_* write_lock* write_unlock* rwsem_* ldsem_* percpu_down_* percpu_up_* rcu_lock_acquire
    rcu_lock_release rcu_read_lock* rcu_read_unlock* lock_is_held lock_pin_lock* lock_unpin_lock* local_bh_*
    check_preemption_disabled debug_smp_processor_id this_cpu_preempt_check
"""

#: Taking a lock. Lockdep names who takes it, which may be a wrapper that others call `infrastructure`.
LOCKS = _names(_LOCKS)

_REPORTING = """
    dump_stack* show_stack* show_regs* show_trace* print_report print_*_report print_address_* print_*_error
    report_bug handle_bug stack_chk_fail warn warn_* exc_* asm_exc_* do_error_trap do_error do_trap* die die_* oops_*
    panic vpanic *_panic nmi_panic* page_fault_oops kernelmode_fixup_or_oops bad_area* no_context do_user_addr_fault
    do_kern_addr_fault handle_page_fault do_page_fault page_fault async_page_fault do_async_page_fault invalid_op
    do_invalid_op general_protection do_general_protection divide_error double_fault do_double_fault df_debug
    error_entry check_panic_on_warn fixup_bug* printk* vprintk* brk_handler call_break_hook bug_handler
    bug_brk_handler do_debug_exception do_el1_* el1_* el1h_* do_mem_abort do_translation_fault do_kernel_fault
    do_tag_check_fault do_sea do_alignment_fault die_kernel_fault dump_backtrace dump_page walk_stackframe
    do_trap_break handle_exception unwind_backtrace unwind_next_frame* arm_notify_die do_DataAbort dabt_svc
    do_undefinstr und_svc program_check_exception program_check_common data_access_* do_bp handle_bp_int
    do_ade handle_tlb*
    x86_indirect_thunk_* retpoline_* sanitizer_* ftrace_* call_trace* add_taint* stack_trace_save* save_stack*
    print_unreferenced unwind_get_* arch_stack_walk* kernel_text_address is_ftrace_trampoline is_bpf_text_address*
    print_context_stack dump_trace
"""

#: Reporting, and the way into an exception.
REPORTING = _names(_REPORTING)

_ENTRY = """
    entry_SYSCALL_* entry_SYSENTER_* entry_INT80_* do_syscall_* do_fast_syscall_* x64_sys_call system_call_fastpath
    int_ret_from_sys_call ret_from_sys_call sysenter_past_esp syscall_call el0_* el0t_* do_el0_svc invoke_syscall
    ret_fast_syscall ret_from_fork* secondary_startup_64*
"""

#: Lockdep sees work items as locks that these take.
WORKERS = _names("process_one_work worker_thread kthread kthread_worker_fn flush_work flush_workqueue")

#: The way in from user space, and the way out of a fork.
ENTRY = _names(_ENTRY)

#: Functions that carry the message. Whoever called them is the one to talk to.
INFRASTRUCTURE = _names(
    _LOCKS
    + _REPORTING
    + _ENTRY
    + """
    # sanitizers
    kasan_* asan_* hwasan_* kmsan_* msan_* kcsan_* tsan_* ubsan_* kfence_* check_memory_region* check_region_inline
    memory_is_* end_report start_report handle_overflow object_err check_object check_bytes_and_report slab_err
    slab_bug slab_fix validate_slab free_debug_processing alloc_debug_processing get_report_* instrument_*
    kmemleak_* create_object* read_word_at_a_time
    # allocators, and the last reference to a page
    kmalloc* do_kmalloc* kzalloc* kcalloc* krealloc* kvmalloc* kvzalloc* kvcalloc* kmem_cache_* cache_alloc* slab_*
    alloc_slab_page* allocate_slab* new_slab* deactivate_slab* kfree* kzfree* kvfree* vunmap
    vmalloc* vzalloc* alloc_pages* alloc_page* alloc_frozen_pages* get_free_page* get_zeroed_page* free_pages* free_page
    free_frozen_* free_unref_* free_one_page free_tail_* free_large_* bad_page* free_page_is_bad* check_new_page*
    check_free_page* prep_new_page prep_compound* get_page_from_freelist rmqueue* folio_alloc* vma_alloc_folio*
    put_page* folio_put* folios_put* release_pages free_swap_cache print_bad_pte vm_normal_page* vm_normal_folio*
    kstrdup* kstrndup* kmemdup* memdup_user vmemdup_user* strndup_user* kasprintf kvasprintf* devm_k*alloc*
    pcpu_alloc* alloc_percpu* free_percpu kernel_init_pages post_alloc_hook
    # memory, strings, user copies, bit operations
    memcpy* memset* memmove* memcmp* memchr* memscan* strcpy* strncpy* strscpy* strlcpy* strlen* strnlen* strcmp*
    strncmp* strcat* strncat* strlcat* strchr* strnchr* strrchr* strstr* strnstr* strsep* strspn* strpbrk* strcasecmp*
    strncasecmp* strim skip_spaces sized_str* rep_movs* rep_stos* copy_to_user* copy_from_user* copy_user_*
    raw_copy_* arch_copy_* copy_to_iter* copy_from_iter* copy_page_to_iter* copy_page_from_iter* simple_copy_to_iter
    iov_iter_copy* clear_page* copy_page* clear_user* get_user* put_user* atomic_* atomic64_* raw_atomic* arch_atomic*
    test_bit* set_bit* clear_bit* change_bit* test_and_* arch_test_* arch_set_bit* arch_clear_bit* find_next_*bit*
    find_first_*bit* check_object_size check_heap_object check_slab_* usercopy_abort usercopy_warn fortify_*
    vsnprintf vscnprintf snprintf scnprintf sprintf vsprintf string_nocheck string pointer number format_decode
    # lists, trees, references, timers, wait queues: the object is somebody else's
    list_add* list_del* list_move* list_replace* list_splice* hlist_add* hlist_del* hlist_* rb_erase* rb_insert*
    rb_first* rb_next* rb_prev* rb_last* refcount_* kref_* ref_tracker_* kobject_* kset_* add_uevent_var
    device_add device_del device_register device_unregister get_device put_device sysfs_* dpm_sysfs_* i2c_del_adapter
    radix_tree_node_alloc* idr_alloc* idr_get_free* ida_alloc* ida_get_new* ida_pre_get xas_alloc xas_create* xas_nomem
    drop_nlink inc_nlink clear_nlink
    debug_object* debug_print_object debug_timer_* debug_rcu_* debug_check_no_obj_freed page_table_check_*
    skb_panic skb_over_panic skb_under_panic skb_put skb_push skb_pull kfree_skb* consume_skb*
    hrtimer_cancel hrtimer_try_to_cancel del_timer* mod_timer* add_timer* try_to_del_timer* call_rcu*
    kvfree_call_rcu kthread_stop* finish_wait prepare_to_wait* wake_up* autoremove_wake_function flush_work cancel_work*
    cancel_delayed_work* queue_work* queue_delayed_work* proc_register proc_create*
"""
)

#: Functions that look after others: a WARNING or a BUG in one of them is its caller's.
CHECKS = _names(
    _LOCKS
    + """
    list_add* list_del* list_move* list_replace* hlist_add* hlist_del* refcount_* kref_* kobject_* debug_object*
    debug_print_object debug_timer_* debug_rcu_* kmalloc_slab* skb_panic skb_over_panic skb_under_panic skb_put skb_push
    skb_pull usercopy_* check_heap_object check_object_size fortify_* memcpy* memset* memmove* str* ref_tracker_*
    sysfs_remove_* sysfs_warn_dup sysfs_create_* dpm_sysfs_* device_add device_del i2c_del_adapter drop_nlink inc_nlink
    clear_nlink flush_work alloc_pages* get_free_page*
"""
)

#: What a driver's request goes through until the USB core looks at it.
USB_CALLS = _names(
    "usb_submit_urb usb_start_wait_urb usb_bulk_msg usb_interrupt_msg usb_internal_control_msg usb_control_msg*"
)

#: Where a task that does not get on waits: in the scheduler, for a lock, for a page, for another CPU.
WAITING = _names("""
    schedule schedule_* io_schedule* context_switch preempt_schedule* switch_to* cond_resched* wait_* *_wait
    *_wait_on_* do_wait_for_common out_of_line_wait_* bit_wait* prepare_to_wait* finish_wait folio_wait_* folio_lock*
    folio_trylock lock_page* lock_folio* lock_sock* console_lock tty_lock* tty_ldisc_lock* tty_ldisc_ref_wait
    percpu_rwsem_* mutex_* *_slowlock* *_slowpath synchronize_* rcu_barrier*
    wait_rcu_gp flush_work* flush_workqueue cancel_work* cancel_delayed_work* kthread_stop* kthread_park
    kthread_flush_work* smp_call_* on_each_cpu* csd_lock* flush_tlb_* native_flush_tlb_* msleep* usleep_* cpu_relax
    rep_nop native_safe_halt native_halt safe_halt arch_safe_halt pv_native_safe_halt default_idle* arch_cpu_idle
    default_idle_call cpuidle_* do_idle cpu_startup_entry mwait_* acpi_idle_* acpi_safe_halt pv_* kvm_wait
    virt_spin_lock arch_spin_lock
    # the timer tick, and the NMI that looked
    rcu_sched_clock_irq rcu_check_callbacks rcu_dump_cpu_stacks rcu_pending print_cpu_stall print_other_cpu_stall
    check_cpu_stall update_process_times tick_* hrtimer_* run_hrtimer enqueue_hrtimer timerqueue_* sysvec_* asm_sysvec_*
    asm_call_irq_on_stack apic_timer_interrupt* smp_apic_timer_interrupt* smp_trace_apic_timer_interrupt
    local_apic_timer_interrupt irq_exit* watchdog_* sched_tick scheduler_tick do_softirq* handle_softirqs nmi_*
    arch_trigger_* trigger_* default_do_nmi do_nmi end_repeat_nmi perf_event_* intel_pmu_* asm_common_interrupt
    common_interrupt sched_show_task dump_cpu_task el1_irq el1_interrupt el1h_64_irq* gic_handle_irq call_on_irq_stack
    arch_timer_handler_*
    # a stall of the rig's own module
    rig_stall_* kprobe_int3_handler aggr_pre_handler opt_pre_handler optimized_callback do_int3
""")

#: What hangs task after task when it does not get on: the hang is better known by it than by its latest victim.
BOTTLENECKS = {
    "rtnl_lock": "rtnl_lock",
    "synchronize_rcu": "synchronize_rcu",
    "synchronize_rcu_expedited": "synchronize_rcu",
    "synchronize_sched": "synchronize_rcu",
    "synchronize_net": "synchronize_rcu",
    "synchronize_srcu": "synchronize_rcu",
}

#: Who hands work to a function that is found at run time. A CPU that is stuck is seen at a random place below that
#: function, so a stall is known by it, and is the same bug wherever the next sample falls.
DISPATCHERS = _names("""
    process_one_work call_timer_fn run_timers run_timer_softirq hrtimer_run_* run_hrtimer run_ksoftirqd
    smpboot_thread_fn netif_receive_skb* kthread start_secondary ret_from_fork* cpu_startup_entry
    do_syscall_* do_fast_syscall_* sysenter_dispatch tracesys_phase2 entry_SYSCALL_* system_call_fastpath x64_sys_call
    el0_svc* do_el0_svc invoke_syscall ret_fast_syscall syscall_trace_enter* handle_syscall exit_to_usermode_loop
    nfnetlink_rcv_msg vfs_write vfs_read vfs_ioctl do_vfs_ioctl vfs_iter_read vfs_iter_write do_iter_read do_iter_write
    do_iter_readv_writev call_read_iter call_write_iter new_sync_read new_sync_write fput
    sock_sendmsg* sock_recvmsg* sys_setsockopt sys_getsockopt sys_connect sys_bind lkdtm_do_action
""")

#: System calls that may run any of the memory management: a stall in them is better known by where it was seen.
MEMORY_CALLS = _names("""
    sys_exit sys_exit_group sys_mmap* sys_munmap sys_mremap sys_mprotect sys_madvise sys_process_madvise sys_mlock*
    sys_brk sys_fallocate sys_ftruncate sys_execve*
""")

#: A CPU that reports a stall, or prints a report, from its timer interrupt.
REPORTERS = _names("""
    tick_sched* update_process_times print_cpu_stall print_other_cpu_stall rcu_dump_cpu_stacks rcu_check_callbacks
    rcu_sched_clock_irq watchdog_timer_fn nmi_cpu_backtrace* sched_show_task serial8250_* uart_console_write
    console_unlock console_flush_all vprintk*
""")

#: The way in of the timer interrupt.
TICK = _names("""
    apic_timer_interrupt* smp_apic_timer_interrupt* local_apic_timer_interrupt sysvec_apic_timer_interrupt*
    hrtimer_interrupt arch_timer_handler_* riscv_timer_interrupt asm_sysvec_apic_timer_interrupt
""")

#: A call trace with one of these is of a CPU or a kernel thread that has nothing to do.
IDLE = _names("""
    rcu_gp_kthread rcu_gp_fqs_loop do_idle default_idle_call cpu_idle_loop native_safe_halt default_idle
""")

#: The bottom of a call trace: nothing that the same task printed can follow in it.
BOTTOM = _names("""
    ret_from_fork* entry_SYSCALL_* entry_SYSENTER_* entry_INT80_* system_call_fastpath int_ret_from_sys_call
    ret_from_sys_call tracesys_phase2 ret_fast_syscall el0_svc* el0_sync* el0t_64_sync* secondary_startup_64*
    cpu_startup_entry start_kernel x86_64_start_kernel kernel_init kthread asm_exc_page_fault page_fault
    async_page_fault retint_user* ret_from_exception sysenter_past_esp syscall_call handle_exception
""")
